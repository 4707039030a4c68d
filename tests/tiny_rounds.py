"""A small random model, a batch of texts of several lengths, and plans: what the laws of the rounds are tried on."""

from __future__ import annotations

from typing import Any

import torch
from stages import make_stage

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.curriculum import plan_at
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.model import DualMask
from dualmask.nn.parallel import mesh

VOCAB, WIDTH = 300, 20
CONFIG = EditConfig(hidden=32, heads=4, filler_layers=2, inserter_layers=1, picker_layers=1, max_length=WIDTH)
ALL = ["filler", "inserter", "picker", "gate"]
EVERY_LOSS = dict.fromkeys(
    ("recon", "comp_hinge", "comp_kl", "ptr_count", "ptr_match", "ptr_uniform", "keep_recover", "keep_oracle"), 1.0
)
EVERY_START = {"rewrite": 0.3, "skeleton": 0.2, "prefix": 0.1, "empty": 0.1, "corrupted": 0.2, "clean": 0.1}


def make_model(**changes: Any) -> DualMask:
    """Weights so large that the model has opinions: nearly equal scores would hide what a decision depends on."""
    mesh.single_process()
    torch.manual_seed(0)
    model = DualMask(CONFIG.model_copy(update=changes), VOCAB)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "neighbours" not in name:
                parameter.normal_(std=0.2)
    return model


def make_batch(rows: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(1)
    length = torch.tensor([20, 12, 2, 9, 20, 15]).repeat(-(-rows // 6))[:rows]
    tokens = torch.randint(6, VOCAB, (rows, WIDTH), generator=draw)
    position = torch.arange(WIDTH)
    tokens = torch.where(
        position == length[:, None] - 1, EOS_ID, torch.where(position >= length[:, None], PAD_ID, tokens)
    )
    tokens[:, 0] = BOS_ID
    return Batch(tokens, length, torch.arange(rows) * 7919)


def make_plan(step: int = 3, **changes: Any) -> EditPlan:
    stage = {"name": "joint", "steps": 10, "train": ALL, "lr": {"peak": 1e-3}, "losses": EVERY_LOSS}
    return EditPlan.of(plan_at([make_stage(stage | changes)], step))


def rounds_plan(step: int = 3, losses: dict[str, float] | None = None, **rollout: Any) -> EditPlan:
    """Four rounds in which everything that can be drawn is drawn, and everything that can carry a gradient does."""
    settings = {"rounds": 4, "window": 2, "first_round": "gate", "on_policy_counts": 0.5, "starts": EVERY_START}
    every = EVERY_LOSS | {"gate": 1.0, "gate_cost": 0.1}
    return make_plan(step, losses=every if losses is None else losses, picker_gradient=0.5, rollout=settings | rollout)
