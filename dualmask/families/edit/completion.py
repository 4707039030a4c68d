"""The second half of a training round: skeleton → inserter → [MASK]s in place → filler (method.md §1), with the labels
that the alignment of the draft with the target gives."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots, D width

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch, present
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import Doubt, InserterOut
from dualmask.families.edit.round import Opened, Remainder, said_twice, take
from dualmask.families.edit.told import Hints, embeddings_at, hints, told_gaps, told_masks
from dualmask.nn.token_losses import ScoredSlots, scored, slots
from dualmask.ops import allocate, gaps
from dualmask.ops.alignment import Holes, holes, within

UNRESTORED = 0.02  # the probability that a missing token, or one too many, is worth


@dataclass(frozen=True)
class Deletion:
    """What a round deletes from its draft, and how the decision hands gradients on."""

    draft: Batch
    x_BTD: Tensor  # embeddings of the draft
    match: Tensor  # [B, T] position in the target, -1: wrong
    deleted: Tensor  # [B, T] bool
    effective: Tensor | None = None  # [B, T] float 1 − g·(1 − m) with the estimators' gradients

    def rows(self, index: Tensor) -> Deletion:
        """Some of the texts. The decision carries no gradient there."""
        return Deletion(self.draft.rows(index), self.x_BTD[index], self.match[index], self.deleted[index])


@dataclass(frozen=True)
class Lessons:
    """How each text is completed.

    told       [B] bool: inserter and filler know what was deleted
    on_policy  [B] bool: masks as the inserter draws them, not as many as are missing; None: nowhere
    open_rows  [B] bool: False leaves the text as it is; None: all are open
    """

    told: Tensor
    on_policy: Tensor | None = None
    open_rows: Tensor | None = None


class Completion:
    """Rules of a round (``round.Rules``) whose deletions are given: counts and fills, and scores both by the labels."""

    number_of_slots: int | None = None  # places at which the filler is asked; None: the host waits to know it

    inserter: InserterOut
    holes: Holes  # what is really missing in each gap of the skeleton
    filler: ScoredSlots
    doubt: Doubt
    goal: Tensor  # [M] position in the target of each slot's token, -1: not known
    cost: Tensor  # [B] nats a target token, detached (see ``text_cost``)

    def __init__(
        self,
        model: DualMask,
        deletion: Deletion,
        target: Batch,
        plan: EditPlan,
        counter: int,
        lessons: Lessons,
    ) -> None:
        self.model, self.deletion, self.target, self.plan, self.counter = model, deletion, target, plan, counter
        self.lessons = lessons

    def delete(self) -> Tensor:
        return self.deletion.deleted

    def count(self, remainder: Remainder) -> Tensor:
        told = told_gaps(remainder, self.lessons.told, self.model.config.told_pieces)
        told = told._replace(pieces=embeddings_at(self.deletion.x_BTD, told.pieces))
        self.inserter = self.model.count(remainder.skeleton, take(self.deletion.x_BTD, remainder.source), told)
        self.holes = holes(self.deletion.match, remainder.keep)
        count = self.holes.count
        if (drawn := self.lessons.on_policy) is not None:
            count = torch.where(drawn[:, None], self._drawn(remainder), count)
        if (open_rows := self.lessons.open_rows) is not None:
            count = count * open_rows[:, None]
        return opening(count, remainder, self.model.config.max_gap_count)

    def _drawn(self, remainder: Remainder) -> Tensor:
        """[B, G] as the inserter counts."""
        logits = self.inserter.gap_logits.detach()
        gumbel = noise.gumbel(self.target.key, "count", self.counter, *logits.shape[1:])
        temperature = torch.full_like(self.target.length, self.plan.temperature, dtype=torch.float32)
        score = allocate.count_scores(logits, temperature, gumbel)
        copies = said_twice(remainder, self.deletion.draft.tokens, self.deletion.draft.deletable)
        return allocate.most_likely(score, self.inserter.gap_present) * ~(copies & self.lessons.told[:, None])

    def fill(self, opened: Opened) -> Tensor:
        """Scores what the filler says, and leaves the [MASK]s where they are."""
        masked, width = opened.masked, opened.masked.tokens.shape[1]
        kept_weight, inner = self.plan.stage.losses.kept_weight, _inner(masked)
        x_BTD = masked_embeddings(self.model, self.deletion, opened, self.plan.stage.picker_gradient)
        slot = slots(masked.is_mask if kept_weight == 0 else inner, self.number_of_slots)
        existing = present(masked.length, width)
        out = self.model.filler(x_BTD, self._positions(opened), existing, slot, self.model.table, self._hints(opened))
        match = opened.carry(self.deletion.match)
        self.doubt = Doubt(out.wrong_logit, match < 0, inner & ~masked.is_mask)
        kept_goal = match.masked_fill(~inner, -1)
        self.goal = _goals(opened, self.holes, kept_goal, self.model.config.max_gap_count).flatten()[slot]
        known, is_mask, row = self.goal >= 0, masked.is_mask.flatten()[slot], slot // width
        weight = torch.where(is_mask, 1.0, kept_weight) * known
        self.filler = scored(out.logits, slot, weight, self.target.tokens[row, self.goal.clamp_min(0)])
        prob = self.filler.target_prob * self._count_prob(opened)[row, _gap(opened).flatten()[slot]]
        self.cost = text_cost(self.deletion, self.target, row, prob, is_mask & known)
        return masked.tokens

    def _hints(self, opened: Opened) -> Hints:
        place = told_masks(opened, self.lessons.told, self.model.config.told_pieces)
        return hints(embeddings_at(self.deletion.x_BTD, place))

    def _positions(self, opened: Opened) -> Tensor:
        """[B, T] 0, 1, 2, …; where the inserter learns through them, with the gradient of its rates."""
        stage = self.plan.stage
        if "inserter" not in stage.train or stage.rollout.count_estimator != "straight_through":
            return gaps.contiguous_positions(opened.masked.tokens)
        rate = gaps.gap_rate(self.inserter.gap_logits, self.inserter.gap_present)
        return gaps.straight_through_positions(~opened.masked.is_mask, rate)

    def _count_prob(self, opened: Opened) -> Tensor:
        """[B, G] the inserter's probability of the counts that were opened."""
        prob = self.inserter.gap_logits.detach().softmax(-1)
        return prob.gather(-1, opened.count[..., None]).squeeze(-1)


def opening(wanted: Tensor, remainder: Remainder, most: int) -> Tensor:
    """[B, G] masks that are opened where ``wanted`` [B, G] are: a hole of more than ``most`` tokens opens over several
    rounds, from the left; so does what passes the width."""
    skeleton = remainder.skeleton
    return within(wanted.clamp_max(most), skeleton.tokens.shape[1] - skeleton.length)


def text_cost(deletion: Deletion, target: Batch, row: Tensor, prob: Tensor, hit: Tensor) -> Tensor:
    """[B] copy-or-fill likelihood of the text that comes out, as nats per token of the target.

    A right token that is kept costs nothing, a slot with probability p of its token (position included) −log(p + ε), a
    missing token without a slot and a wrong one that is kept −log ε each. row, prob, hit [M]: the slots; only those
    that ``hit`` count (choosing them would make the host wait for the device).
    """
    size = len(target.length)
    keep = deletion.draft.present & ~deletion.deleted
    right = keep & (deletion.match >= 0)
    wrong = (keep & (deletion.match < 0)).sum(1)
    slots = torch.zeros(size, device=prob.device).index_add(0, row, hit.to(prob.dtype))
    filled = torch.zeros(size, device=prob.device).index_add(0, row, -torch.log(prob + UNRESTORED) * hit)
    missing = (target.length - right.sum(1) - slots).clamp_min(0)
    return (filled - (missing + wrong) * math.log(UNRESTORED)) / target.length


def masked_embeddings(model: DualMask, deletion: Deletion, opened: Opened, reveal: float) -> Tensor:
    """[B, T, D]: kept tokens with whatever gradient they carry, [MASK]s, and the in-place straight-through term.

    reveal: share of the reconstruction gradient that reaches the decision to delete. A deleted token and the [MASK]
    that stands in for it are one slot, m·emb(x) + (1 − m)·emb([MASK]) with m the effective keep decision: forward
    exactly the [MASK], backward what revealing the token would do to the loss.
    """
    is_mask, origin = opened.masked.is_mask, opened.replaced.clamp_min(0)
    token = take(deletion.x_BTD, origin)
    mask = model.table(torch.full_like(opened.masked.tokens, MASK_ID))
    x_BTD = torch.where(is_mask[..., None], mask, token)
    if reveal == 0 or deletion.effective is None:
        return x_BTD
    decision = take(deletion.effective, origin)
    change = torch.where(opened.replaced >= 0, decision - decision.detach(), 0.0)  # 0 forward
    return x_BTD + reveal * change[..., None].to(x_BTD.dtype) * (token - mask).detach()


def _goals(opened: Opened, missing: Holes, kept: Tensor, most: int) -> Tensor:
    """[B, T] position in the target that belongs at each position of the masked text; -1: not known. ``kept`` [B, T]:
    that of the kept tokens."""
    gap = _gap(opened)
    right = missing.known & (opened.count == missing.count.clamp_max(most)) & (opened.count > 0)
    goal = (missing.first.gather(1, gap) + opened.rank).masked_fill(~right.gather(1, gap), -1)
    return torch.where(opened.masked.is_mask, goal, kept)


def _gap(opened: Opened) -> Tensor:
    """[B, T] the gap of each [MASK]; elsewhere an index that exists."""
    return opened.masked.gap.clamp(0, opened.count.shape[1] - 1)


def _inner(masked: gaps.Masked) -> Tensor:
    """[B, T] bool: between BOS and EOS."""
    position = torch.arange(masked.tokens.shape[1], device=masked.tokens.device)
    return (position > 0) & (position < masked.length[:, None] - 1)
