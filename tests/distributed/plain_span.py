"""SpanFusionLM's curriculum without DeepSpeed and without ranks; the teacher's moving average as one reads it."""

from __future__ import annotations

import decisions
import torch
from plain import Trained, make_optimizer

from data_pipeline.reader import ShardReader
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at, total_steps
from dualmask.families.lm.losses import language_model_loss
from dualmask.families.span.losses import GIVEN, span_loss
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.rollout import rollout
from dualmask.nn.parallel import mesh


def train(run: RunConfig, vocab_size: int) -> Trained:
    mesh.single_process()
    torch.manual_seed(run.seed)
    model = SpanFusion(run.model, vocab_size)
    data = ShardReader(
        run.data.path, batch_size=run.batch.sequences, seed=run.data.shuffle_seed, crop_share=run.data.crop_share
    )
    losses, norms, decided = [], [], []
    for step in range(total_steps(run.stages)):
        plan, batch = plan_at(run.stages, step), next(data)
        settings = plan.stage.span
        if plan.step_in_stage == 0:
            optimizer = make_optimizer(run, model, plan.stage)
            teacher = twin(model, vocab_size) if settings and settings.teacher == "ema" else None
        for group in optimizer.param_groups:
            group["lr"] = plan.lr
        optimizer.zero_grad()
        with decisions.recorded() as record:
            if settings is None:
                loss = language_model_loss(model(batch)[0], batch, GIVEN).total
            else:
                loss = span_loss(rollout(model, batch, plan, teacher), batch, plan).total
        loss.backward()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, run.optimizer.clip)))
        optimizer.step()
        if teacher is not None:
            with torch.no_grad():
                for averaged, parameter in zip(teacher.parameters(), model.parameters(), strict=True):
                    averaged += (1 - settings.ema_decay) * (parameter - averaged)
        losses.append(loss.item())
        decided.append(record.total)
    data.close()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Trained(losses, norms, weights, decided)


def twin(model: SpanFusion, vocab_size: int) -> SpanFusion:
    copy = SpanFusion(model.config, vocab_size)
    copy.load_state_dict(model.state_dict())
    return copy
