"""How a training round decides (``round.Rules``), and what it keeps for the losses: labels, probabilities, gradients.

Every module is called in every round by every rank, and decisions are masks over the batch: ZeRO-3 allows nothing else.
"""

# B batch, T tokens, G gaps = T-1, M slots

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualmask.core import host, noise
from dualmask.families.edit.completion import Completion, Deletion, Lessons, opening
from dualmask.families.edit.decisions import Decision, RoundInput, decide_round
from dualmask.families.edit.labels import Labels
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.model import DraftScores, DualMask
from dualmask.families.edit.outputs import GateOut, RoundOut, RoundState
from dualmask.families.edit.picker import COLDEST
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.round import Opened, Remainder, RoundResult, drop, insert
from dualmask.families.edit.soft_tokens import Drawn, draw_tokens
from dualmask.nn.token_losses import slots
from dualmask.ops.alignment import holes
from dualmask.ops.gaps import gap_index


@dataclass(frozen=True)
class Branch:
    """Texts as the other decision of the Gate would open them, by the labels."""

    remainder: Remainder
    count: Tensor  # [B, G]

    @property
    def length(self) -> Tensor:
        """[B]"""
        return self.remainder.skeleton.length + self.count.sum(1)


@dataclass(frozen=True)
class Sizes:
    """How much there is to fill, as the host must know it to go on: one wait for all of it."""

    masks: int  # [MASK]s of all texts
    tokens: int  # tokens between BOS and EOS of all texts, [MASK]s included
    compared: int = 0  # texts on which the other decision of the Gate is tried
    other_masks: int = 0  # their [MASK]s then
    other_tokens: int = 0

    @classmethod
    def of(cls, opened: Opened, other: Branch | None, compared: Tensor) -> Sizes:
        numbers = [opened.count.sum(), (opened.masked.length - 2).sum()]
        if other is not None:
            masks, tokens = other.count.sum(1), other.length - 2
            numbers += [compared.sum(), (masks * compared).sum(), (tokens * compared).sum()]
        (known,) = host.Copy(torch.stack(numbers)).wait()
        return cls(*known.tolist())


class TrainingRules:
    """Rules of one training round.

    Deletions: the picker's, or given ones (teacher forcing), where the Gate opens. Counts: the inserter's draws or the
    labels'. Tokens: draws from the filler's most likely ones, which may carry a gradient into the next round.
    reference: whose decisions on the same draft ours are compared with.
    """

    decision: Decision
    sizes: Sizes
    other: Branch | None = None  # None: the other decision of the Gate is tried on no text
    before: DraftScores | None = None  # the reference's scores of the draft
    completion: Completion
    drawn: Drawn

    def __init__(
        self, model: DualMask, state: RoundState, given: RoundInput, reference: Reference | None = None
    ) -> None:
        self.model, self.state, self.given, self.reference = model, state, given, reference

    def delete(self) -> Tensor:
        given, draft = self.given, self.given.draft
        x_BTD = self.model.embed(draft.tokens, self.state.soft)
        scores = self.model.read(draft, given.keep_rate, self.state.written_prob, x_BTD, given.labels.deletable)
        decision = decide_round(self.model.config, scores, given)
        if self.reference is not None:
            self.before = self.reference(x_BTD, draft, given.keep_rate, scores.masked_lm, self.state.written_prob)
        own_counts = given.plan.stage.rollout.on_policy_counts
        on_policy = noise.uniform(given.target.key, "own counts", given.counter) < own_counts
        self.completion = Completion(
            self.model,
            Deletion(draft, x_BTD, given.match, decision.deleted, decision.effective),
            given.target,
            given.plan,
            given.counter,
            Lessons(told(given), on_policy & ~decision.compared if own_counts > 0 else None, given.live),
        )
        self.decision = decision
        return decision.deleted

    def count(self, remainder: Remainder) -> Tensor:
        return self.completion.count(remainder)

    def fill(self, opened: Opened) -> Tensor:
        given, rollout = self.given, self.given.plan.stage.rollout
        if "gate" in given.plan.stage.train and given.plan.stage.gate_decides and rollout.gate_rows > 0:
            self.other = self._other_branch()  # the same on every rank
        self.sizes = sizes = Sizes.of(opened, self.other, self.decision.compared)
        self.completion.number_of_slots = self._slots(sizes.masks, sizes.tokens)
        self.completion.fill(opened)
        key, filler = given.target.key, self.completion.filler
        self.drawn = draw_tokens(self.model, opened.masked, filler, key, given.plan, given.counter, sizes.masks)
        return self.drawn.tokens

    def _slots(self, masks: int, tokens: int) -> int:
        """Places at which the filler is asked."""
        return masks if self.given.plan.stage.losses.kept_weight == 0 else tokens

    def _other_branch(self) -> Branch:
        draft, match, decision = self.given.draft, self.given.match, self.decision
        deleted = decision.proposed & (decision.gate < 0.5)[:, None]
        remainder = drop(draft.tokens, draft.length, deleted)
        wanted = holes(match, remainder.keep).count
        return Branch(remainder, opening(wanted, remainder, self.model.config.max_gap_count))

    def out(self, result: RoundResult) -> RoundOut:
        """What the losses need of the round that these rules have decided."""
        given, decision, completion = self.given, self.decision, self.completion
        gate = self._gate_out()  # runs inserter and filler once more: at the same point of a round on every rank
        log_prob = None
        if reinforce.decisions(given.plan.stage, self.model.config):
            log_prob = decision.log_prob | {"token": self.drawn.log_prob, "count": self._count_log_prob(result)}
        return RoundOut(
            draft=given.draft.tokens,
            length=given.draft.length,
            match=given.match,
            deleted=result.deleted,
            keep_rate=given.keep_rate,
            gap_count=completion.holes.count,
            judged=self._judged(result),
            live=given.live.float(),
            restored=self._restored(result),
            filler=completion.filler,
            doubt=completion.doubt,
            inserter=completion.inserter,
            picker=decision.picker,
            gate=gate,
            log_prob=log_prob,
            cost=completion.cost,
            divergence=None if self.before is None else decision.divergence(self.before),
        )

    def next_labels(self, result: RoundResult) -> Labels | None:
        """Of the drafts that the round has led to, as far as there is another round to read them."""
        if self.given.number + 1 >= self.given.plan.rounds:
            return None
        return self.given.labels.after(result.tokens, result.length, self.sizes.tokens)

    def _gate_out(self) -> GateOut | None:
        """The Gate's decision with what both branches would have cost: the exact gradient of a binary gate."""
        decision, cost = self.decision, self.completion.cost
        if "gate" not in self.given.plan.stage.train:
            return None
        editing = decision.gate > 0.5
        edit = generate = torch.zeros_like(cost)
        if self.other is not None:
            rows = slots(decision.compared, self.sizes.compared)
            rows = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=rows.device)  # called by every rank
            other = cost.index_copy(0, rows, self._other_cost(rows, self.other))
            edit, generate = torch.where(editing, cost, other), torch.where(editing, other, cost)
        compared = decision.compared & self.given.live
        return GateOut(decision.gate_logit, decision.gate, decision.free & self.given.live, compared, edit, generate)

    @torch.no_grad()
    def _other_cost(self, rows: Tensor, other: Branch) -> Tensor:
        """[b] cost of the rows [b] if the Gate had decided otherwise, with the masks where they are missing."""
        given, remainder = self.given, other.remainder.rows(rows)
        deletion = replace(self.completion.deletion, deleted=other.remainder.deleted).rows(rows)
        rules = Completion(
            self.model,
            deletion,
            given.target.rows(rows),
            given.plan,
            given.counter,
            Lessons(self.completion.lessons.told[rows]),
        )
        rules.number_of_slots = self._slots(self.sizes.other_masks, self.sizes.other_tokens)
        rules.fill(insert(remainder, rules.count(remainder), width=given.draft.tokens.shape[1]))
        return rules.cost

    def _judged(self, result: RoundResult) -> Tensor:
        """[B, T] bool: deleted tokens of whose hole it is known what belongs there."""
        known, on_policy = self.completion.holes.known, self.completion.lessons.on_policy
        gap = gap_index(result.opened.remainder.keep).clamp(0, known.shape[1] - 1)
        judged = result.deleted & known.gather(1, gap)
        return judged if on_policy is None else judged & ~on_policy[:, None]

    def _restored(self, result: RoundResult) -> Tensor:
        """[B, T] at deleted tokens: the filler's probability of what belongs there. For a right token that is itself,
        for a wrong one the target token of the like-numbered slot of its hole, and 1 where the hole needs no token."""
        keep, match, completion = result.opened.remainder.keep, self.given.match, self.completion
        rows, width = keep.shape
        prob = torch.zeros(rows * width, device=keep.device)
        known = completion.filler.target_prob.float() * (completion.goal >= 0)
        prob = prob.index_copy(0, completion.filler.slot, known).view(rows, width)
        gap = gap_index(keep).clamp(0, width - 2)
        count = result.count.gather(1, gap)
        position = torch.arange(width, device=gap.device)
        in_front = torch.where(keep, position, 0).cummax(1).values  # the kept token in front of the hole
        rank = torch.minimum(position - in_front - 1, count - 1)
        rank = torch.where(match >= 0, match - completion.holes.first.gather(1, gap), rank)
        slot = gap + (result.count.cumsum(1) - result.count).gather(1, gap) + 1 + rank
        back = prob.gather(1, slot.clamp(0, width - 1)) * ((rank >= 0) & (rank < count))
        return torch.where(completion.holes.count.gather(1, gap) == 0, 1.0, back) * result.deleted

    def _count_log_prob(self, result: RoundResult) -> Tensor:
        """[B] log-probability of the counts that the inserter drew for itself, at the temperature of the draw."""
        inserter, on_policy = self.completion.inserter, self.completion.lessons.on_policy
        if on_policy is None:
            return torch.zeros_like(self.completion.cost)
        logits = inserter.gap_logits / max(self.given.plan.temperature, COLDEST)
        log_prob = logits.log_softmax(-1).gather(-1, result.count[..., None]).squeeze(-1)
        return (log_prob * inserter.gap_present).sum(1) * on_policy


def told(given: RoundInput) -> Tensor:
    """[B] bool: texts in which inserter and filler know what the round deletes, as they do where a text is mended. Of a
    text that is to be shortened they learn nothing: what is left must be enough to restore it."""
    share = given.plan.stage.rollout.told_deletions
    return (noise.uniform(given.target.key, "told", given.counter) < share) & (given.keep_rate == 1)
