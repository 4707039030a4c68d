"""What makes the picker work: its delete logit learns the probability that a deleted token comes back.

The label is end to end: probability of the token under the filler × probability of the right count under the inserter,
both from this very batch and detached. A hole that cannot be found again is worth nothing, however easy to fill.
"""

# B batch, T tokens, M slots

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.losses.counts import count_log_prob
from dualmask.ops.gaps import gap_index
from dualmask.outputs import RoundOut


def labels(out: RoundOut, count_power: float = 1.0) -> Tensor:
    """P(token) · P(count)^count_power: [B, T] probability in [0, 1] at deleted places, 0 elsewhere; no gradient."""
    assert out.inserter is not None
    assert out.filler is not None
    shape = out.deleted.shape
    flat = torch.zeros(out.deleted.numel(), device=out.deleted.device)
    restored = flat.scatter(0, out.filler.slot, out.filler.target_prob.float()).view(shape)
    found = count_log_prob(out.inserter.gap_logits.detach(), out.gap_count).exp()
    most = out.inserter.gap_logits.shape[-1] - 1
    found = torch.where(out.gap_count <= most, found, 0.0) ** count_power
    gap = gap_index(~out.deleted).clamp(0, found.shape[1] - 1)
    return restored * found.gather(1, gap) * out.deleted


def loss(out: RoundOut, expected: float, count_power: float = 1.0) -> Tensor:
    """Binary cross entropy against the labels over the deleted tokens."""
    assert out.picker is not None
    label = labels(out, count_power)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(out.picker.delete_logit, label, reduction="none")
    return (entropy * out.deleted).sum() / expected


def oracle(out: RoundOut, target: Tensor, expected: float) -> Tensor:
    """`keep_oracle`: binary cross entropy of the keep probability against "this token of the draft is right", over the
    sequences that came with wrong tokens. [B, T] ``target`` is the uncorrupted text."""
    assert out.picker is not None
    right = out.draft == target
    where = (out.picker.keep_prob < 1) & ~right.all(1, keepdim=True)
    prob = out.picker.keep_prob.clamp(1e-6, 1 - 1e-6)
    entropy = -torch.where(right, prob.log(), torch.log1p(-prob))
    return (entropy * where).sum() / expected
