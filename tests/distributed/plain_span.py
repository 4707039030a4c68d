"""SpanFusionLM's curriculum without DeepSpeed and without ranks; the teacher's moving average as one reads it."""

from __future__ import annotations

import decisions
import torch
from plain import Trained, make_optimizer

from data_pipeline.crop import Crop
from data_pipeline.reader import ShardReader, Share
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at, total_steps
from dualmask.families.span.losses import GIVEN, span_loss
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.rollout import rollout
from dualmask.nn import initial
from dualmask.nn.parallel import mesh
from dualmask.nn.token_losses import mean_token_loss


def train(run: RunConfig, vocab_size: int) -> Trained:
    mesh.single_process()
    model = SpanFusion(run.model, vocab_size)
    initial.fill(model, run.seed)
    data = ShardReader(run.data.path, Share(run.batch.sequences, seed=run.data.shuffle_seed), Crop(run.data.crop_share))
    losses, norms, decided = [], [], []
    for step in range(total_steps(run.stages)):
        plan, batch = plan_at(run.stages, step), next(data)
        how = getattr(plan.stage, "span", None)
        if plan.step_in_stage == 0:
            optimizer = make_optimizer(run, model, plan.stage)
            teacher = twin(model, vocab_size) if how and how.teacher == "ema" else None
        for group in optimizer.param_groups:
            group["lr"] = plan.lr
        optimizer.zero_grad()
        with decisions.recorded() as record:
            if how is None:
                loss = mean_token_loss(model(batch)[0], batch, GIVEN)
            else:
                loss = span_loss(rollout(model, batch, plan, teacher), batch, plan).total
        loss.backward()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, run.optimizer.clip)))
        optimizer.step()
        if teacher is not None:
            with torch.no_grad():
                for averaged, parameter in zip(teacher.parameters(), model.parameters(), strict=True):
                    averaged += (1 - how.ema_decay) * (parameter - averaged)
        losses.append(loss.item())
        decided.append(record.total)
    data.close()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Trained(losses, norms, weights, decided)


def twin(model: SpanFusion, vocab_size: int) -> SpanFusion:
    copy = SpanFusion(model.config, vocab_size)
    copy.load_state_dict(model.state_dict())
    return copy
