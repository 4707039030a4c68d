"""Losses of the inserter: the true counts are known, because the deletion itself made them."""

# B batch, G gaps, K most masks a gap

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.families.edit.outputs import RoundOut
from dualmask.ops.gaps import gap_rate


def count_log_prob(gap_logits: Tensor, count: Tensor) -> Tensor:
    """[B, G] log P_j(count). A hole longer than K opens over several rounds, so K is the right answer for it."""
    most = gap_logits.shape[-1] - 1
    return gap_logits.log_softmax(-1).gather(-1, count.clamp_max(most)[..., None]).squeeze(-1)


def losses(out: RoundOut, expected: float) -> dict[str, Tensor]:
    assert out.inserter is not None
    rows = len(out.gap_count)
    present = out.inserter.gap_present & (out.live[:, None] > 0)
    rate = gap_rate(out.inserter.gap_logits, present)
    share = rate / rate.sum(1, keepdim=True).clamp_min(1e-6)
    uniform = 1.0 / present.sum(1, keepdim=True).clamp_min(1)
    log_ratio = torch.log(share.clamp_min(1e-9) / uniform)
    return {
        "ptr_count": -(count_log_prob(out.inserter.gap_logits, out.gap_count) * present).sum() / expected,
        "ptr_match": ((rate.sum(1) - out.gap_count.sum(1)).abs() * out.live).sum() / expected,
        "ptr_uniform": (share * log_ratio * present).sum() / rows,
    }


def accuracy(out: RoundOut) -> Tensor:
    """Share of the non-empty gaps whose most likely count is the true one."""
    assert out.inserter is not None
    most = out.inserter.gap_logits.shape[-1] - 1
    open_gap = (out.gap_count > 0) & out.inserter.gap_present
    right = (out.inserter.gap_logits.argmax(-1) == out.gap_count.clamp_max(most)) & open_gap
    return right.sum() / open_gap.sum().clamp_min(1)
