"""A small random SpanFusionLM, texts of several lengths, and plans: what the laws of spans are tried on."""

from __future__ import annotations

from typing import Any

import torch
from stages import make_stage
from tiny_rounds import make_batch

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan, plan_at
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from dualmask.families.span.model import SpanFusion
from dualmask.nn.parallel import mesh

VOCAB, WIDTH, SPAN = 64, 20, 6
PARTS = SpanFusionConfig(
    family="spanfusion",
    hidden=32,
    heads=4,
    max_length=WIDTH,
    span=SpanModelConfig(decoder_layers=2, encoder_layers=1, g_max=4, gate_hidden=16),
)
LOSSES = {"pred": 0.3, "gate_cost": 0.5, "gate_cost_steps": 1}


def make_model(*, checkpointing: bool = False, **span: Any) -> SpanFusion:
    """Weights so large that the model has opinions: nearly equal scores would hide what a decision depends on."""
    mesh.single_process()
    torch.manual_seed(0)
    assert PARTS.span is not None
    config = PARTS.model_copy(update={"span": PARTS.span.model_copy(update=span)})
    model = SpanFusion(config, VOCAB, activation_checkpointing=checkpointing)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "neighbours" not in name and "gate" not in name:
                parameter.normal_(std=0.2)
    return model


def make_texts(rows: int = 6) -> Batch:
    batch = make_batch(rows)
    inner = batch.tokens % (VOCAB - 6) + 6
    return Batch(torch.where(batch.tokens < 6, batch.tokens, inner), batch.length, batch.key)


def span_plan(step: int = 3, losses: dict[str, float] | None = None, **settings: Any) -> StepPlan:
    """A stage in which every loss has a weight."""
    section = {"lengths": [SPAN], "losses": LOSSES if losses is None else losses} | settings
    train = ["decoder", "encoder", "gate"]
    stage = {"name": "span", "steps": 10, "train": train, "lr": {"peak": 1e-3}, "span": section}
    return plan_at([make_stage(stage)], step)
