"""The weighted sum of a round's losses (table in docs/method.md).

Sums over slots are divided by the number *expected* from the configuration, never by the number counted: so the loss
of a batch is the mean of the losses of its parts, and neither the number of ranks nor gradient accumulation changes it.
"""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.losses import compression, counts, recoverability
from dualmask.outputs import RoundOut


@dataclass(frozen=True)
class LossReport:
    total: Tensor  # scalar, to be averaged over data-parallel ranks and micro-batches
    parts: dict[str, Tensor]  # detached scalars: each loss unweighted, and diagnostics


def total_loss(out: RoundOut, batch: Batch, plan: StepPlan) -> LossReport:
    expected = expected_deletions(batch, plan)
    losses: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    if out.filler is not None:
        losses["recon"] = (out.filler.loss * out.filler.slot_weight).sum() / expected
        seen["restored_prob"] = _mean(out.filler.target_prob, out.filler.slot_weight)
    if out.inserter is not None:
        losses |= counts.losses(out, expected)
        seen["gap_accuracy"] = counts.accuracy(out)
    if out.picker is not None:
        losses |= compression.losses(out.picker, batch, out.keep_rate, plan)
        losses["keep_recover"] = recoverability.loss(out, expected, plan.stage.deletion.count_power)
        losses["keep_oracle"] = recoverability.oracle(out, batch.tokens, expected)
        seen |= compression.spread(out.picker, batch)
    total = torch.zeros((), device=batch.tokens.device)
    for name, loss in losses.items():
        if plan.loss_weight[name] != 0:
            total = total + plan.loss_weight[name] * loss
    return LossReport(total, {name: value.detach().float() for name, value in (losses | seen).items()})


def expected_deletions(batch: Batch, plan: StepPlan) -> float:
    """Mean number of deleted tokens in a batch of full-length sequences."""
    rows, width = batch.tokens.shape
    return rows * (width - 2) * (1 - (plan.keep_rate_low + plan.keep_rate_high) / 2)


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp_min(1e-6)
