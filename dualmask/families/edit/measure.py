"""How DualMaskLM is judged while it trains (``families.task.Measure``): by the loss of each module, and by how well it
finds wrong texts and puts them right.

Everything that is drawn (holes, start states, what is made wrong) depends on the text alone, so that evaluations differ
in nothing but the weights. Schedules stand where the stage ends.
"""

# B texts, T tokens, N items

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dualmask.config.corruption import NATURAL
from dualmask.core.batch import Batch, present
from dualmask.core.tokenizer import EOS_ID, PAD_ID, PRED_ID
from dualmask.curriculum import StepPlan
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.evaluate.edits import agreement, f05, untouched
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.losses import recoverability
from dualmask.families.edit.losses.counts import count_log_prob
from dualmask.families.edit.losses.total import round_loss, window_loss
from dualmask.families.edit.outputs import RoundOut
from dualmask.families.edit.picker import decide
from dualmask.families.edit.round import Remainder, play_round
from dualmask.families.task import Measure, ratio
from dualmask.ops.alignment import align, within
from dualmask.ops.corruption import LOOKED_UP
from dualmask.ops.mistakes import make_mistakes

if TYPE_CHECKING:
    from dualmask.families.edit.task import EditTask, RoundsTask

BINS = 2**16


class HolesMeasure(Measure):
    """Stages whose holes are random, to be counted and filled in place."""

    texts_at_once = None
    task: EditTask

    def sums(self, batch: Batch, plan: StepPlan) -> dict[str, Tensor]:
        plan = EditPlan.of(plan)
        out = self.task.model(batch, plan)
        rows = len(batch.length)
        return {"loss": ratio(round_loss(out, plan).total * rows, rows)} | _of_modules([out], plan)


class RoundsMeasure(Measure):
    """Stages that play rounds: the rounds of training, and one of `auto` on texts that were made wrong."""

    best = "dev_f05"
    texts_at_once = None
    task: RoundsTask

    def sums(self, batch: Batch, plan: StepPlan) -> dict[str, Tensor]:
        plan = EditPlan.of(plan)
        outs, state, total = [], None, torch.zeros((), device=batch.tokens.device)
        for rounds in plan.windows:
            played, state = self.task.play(batch, plan, rounds, state)
            total = total + window_loss(played, rounds, plan).total
            outs += played
        rows = len(batch.length)
        return {"loss": ratio(total * rows, rows)} | _of_modules(outs, plan) | self._editing(batch, plan)

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        scores = {f"dev_{name}": area(sums[name]) for name in ("token_auc", "gate_auc")}
        with np.errstate(invalid="ignore"):  # NaN where nothing was wrong, and nothing was done
            quality = float(f05(sums["edits"].numpy()))
        return super().figures(sums) | scores | {"dev_f05": quality}

    @torch.no_grad()
    def _editing(self, batch: Batch, plan: EditPlan) -> dict[str, Tensor]:
        """Sums over wrong and right texts: what picker and Gate think of them, and what a round makes of them."""
        errors = self.task.errors.to(batch.tokens.device)
        corruption = plan.stage.rollout.corruption
        grows = any(kind in corruption.needs for kind in (*LOOKED_UP, NATURAL))  # such errors cost several tokens
        right = shortened(batch, batch.tokens.shape[1] * (3 if grows else 7) // (4 if grows else 8))
        every = torch.ones_like(right.length, dtype=torch.bool)
        wrong = Batch(*make_mistakes(right, every, 0, corruption, errors), right.key)
        gate_decides = "gate" in plan.stage.train
        of_wrong = _edited(self.task, wrong, right, gate_decides)
        of_right = _edited(self.task, right, right, gate_decides)
        gate = torch.cat([of_wrong.gate_logit, of_right.gate_logit])
        is_wrong = torch.cat([of_wrong.match_fails.any(1), of_right.match_fails.any(1)])
        judged = torch.cat([of_wrong.match_fails.any(1)] * 2)  # a text that only lacks tokens has nothing to delete
        where = wrong.deletable
        doubts = torch.cat([of_wrong.wrong_logit[where], of_right.wrong_logit[right.deletable]])
        labels = torch.cat([of_wrong.match_fails[where], of_right.match_fails[right.deletable]])
        return {
            "picker": ratio(_entropy(doubts, labels), len(doubts)),
            "gate": ratio(_entropy(gate, is_wrong), len(gate)),
            "token_auc": histograms(of_wrong.wrong_logit[where], of_wrong.match_fails[where]),
            "gate_auc": histograms(gate[judged], is_wrong[judged]),
            "edits": _agreements(wrong, of_wrong.result, right).to(gate.device),
            "untouched": _untouched(right, of_right.result).to(gate.device),
        }


def shortened(batch: Batch, room: int) -> Batch:
    """The texts cut to ``room`` tokens, so that they may grow by what is doubled or misspelt."""
    length = batch.length.clamp_max(room)
    position = torch.arange(batch.tokens.shape[1], device=length.device)
    tokens = torch.where(position == length[:, None] - 1, EOS_ID, batch.tokens)
    return Batch(torch.where(present(length, len(position)), tokens, PAD_ID), length, batch.key)


@dataclass(frozen=True)
class _Edited:
    """What a round of `auto` thinks of drafts, and makes of them."""

    match_fails: Tensor  # [B, T] bool: the token is wrong
    wrong_logit: Tensor  # [B, T]
    gate_logit: Tensor  # [B]
    result: Batch


@dataclass(frozen=True)
class _WithinWidth(GivenRules):
    """The likeliest counts, as far as the text does not pass the width of its draft."""

    def count(self, remainder: Remainder) -> Tensor:
        skeleton = remainder.skeleton
        return within(super().count(remainder), skeleton.tokens.shape[1] - skeleton.length)


def _edited(task: RoundsTask, draft: Batch, right: Batch, gate_decides: bool) -> _Edited:
    """One round at thresholds of 0.5. A Gate that the stage does not teach is held open."""
    model, width = task.model, draft.tokens.shape[1]
    everything = torch.ones(len(draft.length), device=draft.tokens.device)
    scores = model.read(draft, everything)
    no_noise = torch.zeros_like(scores.logits.wrong)
    deleted = decide(model.config, scores.logits, draft.deletable, None, no_noise, 0.0)
    if gate_decides:
        deleted &= (scores.gate_logit > 0)[:, None]
    writable = torch.arange(model.vocab_size, device=draft.tokens.device) > PRED_ID  # no special token
    result = play_round(draft.tokens, draft.length, _WithinWidth(model, deleted, writable=writable), width=width)
    fails = (align(draft.tokens, draft.length, right.tokens, right.length) < 0) & draft.deletable
    return _Edited(fails, scores.logits.wrong, scores.gate_logit, Batch(result.tokens, result.length, draft.key))


def _of_modules(outs: list[RoundOut], plan: EditPlan) -> dict[str, Tensor]:
    """The losses of the modules over some rounds, each over what it is a loss of."""
    parts: dict[str, list[Tensor]] = {}
    for out in outs:
        if out.filler is not None:
            weight = out.filler.slot_weight * out.live[out.filler.slot // out.draft.shape[1]]
            nats, number = (out.filler.loss.double() * weight).sum(), weight.sum()
            parts.setdefault("filler", []).append(ratio(nats, number))
            parts.setdefault("bits", []).append(ratio(nats / math.log(2), number))
        if out.inserter is not None:
            there = out.inserter.gap_present & (out.live[:, None] > 0)
            nats = -(count_log_prob(out.inserter.gap_logits, out.gap_count).double() * there).sum()
            parts.setdefault("inserter", []).append(ratio(nats, there.sum()))
        if out.picker is not None:
            judged = out.judged & (out.live[:, None] > 0)
            label = recoverability.labels(out, plan.stage.deletion.count_power)
            nats = binary_cross_entropy_with_logits(out.picker.delete_logit, label, reduction="none")
            parts.setdefault("recover", []).append(ratio((nats.double() * judged).sum(), judged.sum()))
    return {name: torch.stack(pairs).sum(0) for name, pairs in parts.items()}


def _entropy(logit: Tensor, label: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logit.double(), label.double(), reduction="sum")


def _agreements(draft: Batch, result: Batch, right: Batch) -> Tensor:
    """[3] edits made and needed, made, needed."""
    triples = zip(_ids(draft), _ids(result), _ids(right), strict=True)
    counts = [agreement(*triple)[:3] for triple in triples]
    return torch.tensor(counts, dtype=torch.float64).sum(0)


def _untouched(right: Batch, result: Batch) -> Tensor:
    """[2] tokens left alone, tokens."""
    pairs = [(untouched(source, made), len(source)) for source, made in zip(_ids(right), _ids(result), strict=True)]
    return torch.tensor(pairs, dtype=torch.float64).sum(0)


def _ids(batch: Batch) -> list[list[int]]:
    """What stands between BOS and EOS."""
    return [row[1 : size - 1] for row, size in zip(batch.tokens.tolist(), batch.length.tolist(), strict=True)]


def histograms(score: Tensor, positive: Tensor) -> Tensor:
    """[2, BINS] how many negative and positive items [N] fall in each bin of the score.

    A bin is the upper half of a float32's bits, in order: 1/128 of a score's size, whatever that is, so that counts of
    ranks add up and the area hardly loses anything.
    """
    bits = score.float().contiguous().view(torch.int32).long()
    ordered = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    place = positive.long() * BINS + (ordered >> 16) + BINS // 2
    counts = torch.zeros(2 * BINS, dtype=torch.float64, device=score.device)
    return counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float64)).view(2, BINS)


def area(counts: Tensor) -> float:
    """Under the ROC curve, from ``histograms``: the chance that a positive item scores higher, ties counting half. NaN
    without any of one kind."""
    downs, ups = counts
    below = downs.cumsum(0) - downs / 2
    return float((ups * below).sum() / (ups.sum() * downs.sum()))
