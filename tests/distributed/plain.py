"""The same curriculum without DeepSpeed, without ranks: one process, torch.optim.AdamW, clip_grad_norm_, and the
windows of the rounds as a loop that one can read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import decisions
import torch
from torch import Tensor

from data_pipeline.crop import Crop
from data_pipeline.reader import ShardReader, Share
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at, total_steps
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.losses.total import round_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.runtime import copied
from dualmask.families.edit.task import begin, unroll
from dualmask.nn import initial
from dualmask.nn.parallel import mesh


@dataclass(frozen=True)
class Trained:
    losses: list[float]
    grad_norms: list[float]
    weights: dict[str, Tensor]
    decisions: list[int]  # one number a step: see decisions.py


def train(run: RunConfig, vocab_size: int) -> Trained:
    mesh.single_process()
    model = DualMask(run.model, vocab_size)
    initial.fill(model, run.seed)
    data = ShardReader(run.data.path, Share(run.batch.sequences, seed=run.data.shuffle_seed), Crop(run.data.crop_share))
    losses, norms, decided = [], [], []
    for step in range(total_steps(run.stages)):
        plan = EditPlan.of(plan_at(run.stages, step))
        if plan.step_in_stage == 0:
            begin_stage(model, plan.stage)
            optimizer = make_optimizer(run, model, plan.stage)
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * group["scale"]
        batch = next(data)
        optimizer.zero_grad()
        with decisions.recorded() as record:
            losses.append(backward(model, batch, plan))
        decided.append(record.total)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, run.optimizer.clip)))
        optimizer.step()
    data.close()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Trained(losses, norms, weights, decided)


@torch.no_grad()
def begin_stage(model: DualMask, stage) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for name, source in copied(before, stage).items():
        model.get_parameter(name).copy_(before[source])


def backward(model: DualMask, batch: Batch, plan: EditPlan) -> float:
    """One batch's loss, its gradient added to the parameters'."""
    if not plan.stage.plays_rounds:
        loss = round_loss(model(batch, plan), plan).total
        (loss * batch.texts_per_row).backward()
        return loss.item()
    rollout, total = plan.stage.rollout, 0.0
    state = begin(batch, plan)
    for first in range(0, plan.rounds, rollout.window):
        window = range(first, min(first + rollout.window, plan.rounds))
        loss = torch.zeros(())
        for number in window:
            state, (out,) = unroll(model, state, batch, plan, range(number, number + 1))
            recon_weight = 1.0 if number == window[-1] else rollout.earlier_weight
            loss = loss + round_loss(out, plan, recon_weight=recon_weight).total / plan.rounds
        (loss * batch.texts_per_row).backward()
        total += loss.item()
        state = replace(state, soft=None)
    return total


def make_optimizer(run, model, stage) -> torch.optim.AdamW:
    groups = []
    for name, parameter in model.named_parameters():
        module = stage.module_of(name)
        parameter.requires_grad_(module is not None)
        if module is not None:
            decay = run.optimizer.weight_decay if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "weight_decay": decay, "scale": stage.lr_scale.get(module, 1.0)})
    betas = (run.optimizer.beta1, run.optimizer.beta2)
    return torch.optim.AdamW(groups, lr=stage.lr.peak, betas=betas, eps=run.optimizer.eps)
