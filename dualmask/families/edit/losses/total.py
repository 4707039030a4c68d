"""The weighted sum of the losses of a round, and of the rounds of one BPTT window (table in docs/method.md).

Sums over slots are divided by the number *expected* from the configuration, never by the number counted: so the loss
of a batch is the mean of the losses of its parts, and neither the number of ranks nor gradient accumulation changes it.
"""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.losses import compression, counts, gate, recoverability
from dualmask.families.edit.outputs import RoundOut
from dualmask.families.task import WindowLoss

# from the alignment, beside `recon`
LABELS = ("ptr_count", "ptr_match", "keep_recover", "keep_oracle", "gate_oracle", "doubt")


def round_loss(out: RoundOut, plan: EditPlan, label_weight: float = 1.0, recon_weight: float = 1.0) -> WindowLoss:
    """One round. ``label_weight``, ``recon_weight``: factors on the configured weights of the labels and of `recon`."""
    losses, figures = _losses(out, plan)
    total = sum((0.0 * x.float().sum() for x in _outputs(out)), torch.zeros((), device=out.draft.device))
    for name, loss in losses.items():
        here = recon_weight if name == "recon" else label_weight if name in LABELS else 1.0
        if plan.loss_weight[name] * here != 0:
            total = total + plan.loss_weight[name] * here * loss
    return WindowLoss(total, {name: value.detach().float() for name, value in (losses | figures).items()})


def window_loss(outs: Sequence[RoundOut], rounds: range, plan: EditPlan) -> WindowLoss:
    """Rounds ``rounds`` of ``plan.rounds``: windows add up to the mean over all rounds, parts as well as totals.

    ``cost_0``, ``cost_1``, …: nats a target token of the text that came out of each round.
    """
    rollout = plan.stage.rollout
    parts: dict[str, Tensor] = {}
    total = torch.zeros((), device=outs[0].draft.device)
    for number, out in zip(rounds, outs, strict=True):
        last = number == rounds[-1]
        label_weight = 1.0 if number == 0 else rollout.own_draft_weight
        report = round_loss(out, plan, label_weight, 1.0 if last else rollout.earlier_weight)
        total = total + report.total / plan.rounds
        for name, value in report.parts.items():
            parts[name] = parts.get(name, 0.0) + value / plan.rounds
        assert out.cost is not None
        parts[f"cost_{number}"] = out.cost.mean().float()
    return WindowLoss(total, parts)


def expected_deletions(out: RoundOut, plan: EditPlan) -> float:
    """Mean number of deleted tokens in a batch of full-length sequences that are cut to the requested keep rates."""
    rows, width = out.draft.shape
    return rows * (width - 2) * (1 - (plan.keep_rate_low + plan.keep_rate_high) / 2)


def _losses(out: RoundOut, plan: EditPlan) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every loss that this round's outputs allow, unweighted; and diagnostics."""
    expected = expected_deletions(out, plan)
    losses: dict[str, Tensor] = {}
    figures: dict[str, Tensor] = {}
    if out.filler is not None:
        weight = out.filler.slot_weight * out.live[out.filler.slot // out.draft.shape[1]]
        losses["recon"] = (out.filler.loss * weight).sum() / expected
        figures["restored_prob"] = _mean(out.filler.target_prob, weight)
    if out.doubt is not None:
        losses["doubt"] = recoverability.doubt(out.doubt, out.live)
    if out.inserter is not None:
        losses |= counts.losses(out, expected)
        figures["gap_accuracy"] = counts.accuracy(out)
    if out.picker is not None:
        losses |= compression.losses(out, plan)
        losses["keep_recover"] = recoverability.loss(out, expected, plan.stage.deletion.count_power)
        losses["keep_oracle"] = recoverability.oracle(out)
        figures |= compression.spread(out.picker, out.length)
    if out.gate is not None:
        losses |= gate.losses(out)
        figures |= gate.figures(out.gate)
    return losses, figures


def _outputs(out: RoundOut) -> list[Tensor]:
    """What the learning modules said: each gets a gradient in every round, be it zero (see StageEngine)."""
    said = [] if out.filler is None else [out.filler.loss]
    said += [] if out.doubt is None else [out.doubt.logit]
    said += [] if out.inserter is None else [out.inserter.gap_logits]
    said += [] if out.picker is None else [out.picker.delete_logit, out.picker.wrong_logit]
    return said + ([] if out.gate is None else [out.gate.logit])


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp_min(1e-6)
