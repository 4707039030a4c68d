"""Losses that hold the picker to the requested rate, and the figures that show whether its decisions have collapsed."""

# B batch, T tokens

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core.batch import deletable
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.outputs import PickerOut, RoundOut

FLOOR = 1e-3  # of a probability that a divergence is measured against


def losses(out: RoundOut, plan: EditPlan) -> dict[str, Tensor]:
    """comp_hinge: share kept beyond the requested rate (seed 003), where there is one.

    comp_kl: KL(Bernoulli(1−p) ‖ Bernoulli(g·r_max)) per token (seed 000; r_max is a share that may be *deleted*,
    docs/method.md R2). Without a Gate g is 1.
    """
    assert out.picker is not None
    where = deletable(out.length, out.draft.shape[1]) & (out.live[:, None] > 0)
    kept = (out.picker.keep * where).sum(1) / where.sum(1).clamp_min(1)
    edits = out.live if out.gate is None else out.gate.value.detach()
    most = (edits * plan.max_delete_rate).clamp(FLOOR, 1 - FLOOR)[:, None]
    gone = (1 - out.picker.keep_prob).clamp(1e-6, 1 - 1e-6)
    divergence = gone * torch.log(gone / most) + (1 - gone) * torch.log((1 - gone) / (1 - most))
    return {
        "comp_hinge": (torch.relu(kept - out.keep_rate) * out.live).mean(),
        "comp_kl": (divergence * where).sum() / where.numel(),
    }


def spread(picker: PickerOut, length: Tensor) -> dict[str, Tensor]:
    """``keep_std``: spread of the keep probabilities within a text; near 0 the picker treats all tokens alike, a
    collapse (families/edit/alarms.py). Texts with different requested rates differ anyway, so that does not count."""
    prob = picker.keep_prob.detach()
    where = deletable(length, prob.shape[1]).float()
    number = where.sum().clamp_min(1)
    mean = (prob * where).sum(1, keepdim=True) / where.sum(1, keepdim=True).clamp_min(1)
    variance = ((prob - mean).square() * where).sum() / number
    return {"keep_mean": (prob * where).sum() / number, "keep_std": variance.sqrt()}
