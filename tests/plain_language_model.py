"""A language model trained without DeepSpeed and without ranks: torch.optim.AdamW and clip_grad_norm_."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.nn import initial
from dualmask.nn.parallel import mesh
from dualmask.nn.token_losses import mean_token_loss


def train(run: RunConfig, vocab_size: int, batches: Iterable[Batch]) -> tuple[list[float], dict[str, Tensor]]:
    """Loss of each batch, and the weights behind the last."""
    mesh.single_process()
    model = build(run.model, vocab_size)
    initial.fill(model, run.seed)
    decay = run.optimizer.weight_decay
    groups = [{"params": [p], "weight_decay": decay if p.ndim > 1 else 0.0} for p in model.parameters()]
    betas = (run.optimizer.beta1, run.optimizer.beta2)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=run.optimizer.eps)
    losses = []
    for step, batch in enumerate(batches):
        plan = plan_at(run.stages, step)
        for group in optimizer.param_groups:
            group["lr"] = plan.lr
        loss = mean_token_loss(model(batch, plan), batch, model.given)
        optimizer.zero_grad()
        (loss * batch.texts_per_row).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: parameter.detach() for name, parameter in model.named_parameters()}
