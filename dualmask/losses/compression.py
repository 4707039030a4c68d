"""Losses that hold the picker to the asked rate, and the figures that show whether its decisions have collapsed."""

# B batch, T tokens

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.outputs import PickerOut


def losses(picker: PickerOut, batch: Batch, keep_rate: Tensor, plan: StepPlan) -> dict[str, Tensor]:
    """comp_hinge: share kept beyond the asked rate (seed 003). comp_kl: KL(Bernoulli(1−p) ‖ Bernoulli(r_max)) per
    token (seed 000 with g = 1; r_max is a share that may be *deleted*, docs/method.md R2)."""
    where = batch.deletable
    kept = (picker.keep * where).sum(1) / where.sum(1).clamp_min(1)
    most = plan.stage.deletion.max_delete_rate
    gone = (1 - picker.keep_prob).clamp(1e-6, 1 - 1e-6)
    divergence = gone * torch.log(gone / max(most, 1e-6)) + (1 - gone) * torch.log((1 - gone) / max(1 - most, 1e-6))
    return {
        "comp_hinge": torch.relu(kept - keep_rate).mean(),
        "comp_kl": (divergence * where).sum() / where.numel(),
    }


def spread(picker: PickerOut, batch: Batch) -> dict[str, Tensor]:
    """``keep_std`` below 0.02 means that the picker treats all tokens alike: a collapse."""
    prob = picker.keep_prob.detach()
    where = batch.deletable.float()
    mean = (prob * where).sum() / where.sum().clamp_min(1)
    variance = ((prob - mean).square() * where).sum() / where.sum().clamp_min(1)
    return {"keep_mean": mean, "keep_std": variance.sqrt()}
