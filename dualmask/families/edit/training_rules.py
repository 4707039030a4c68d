"""How a training round decides (``round.Rules``), and what it keeps for the losses: labels, probabilities, gradients.

Every module is called in every round by every rank, and decisions are masks over the batch: ZeRO-3 allows nothing else.
"""

# B batch, T tokens, G gaps = T-1, M slots

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.families.edit.completion import Completion, Deletion
from dualmask.families.edit.decisions import Decision, RoundInput, decide_round
from dualmask.families.edit.model import DraftScores, DualMask
from dualmask.families.edit.outputs import GateOut, RoundOut, RoundState
from dualmask.families.edit.picker import COLDEST
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.round import Opened, Remainder, RoundResult, play_round
from dualmask.families.edit.soft_tokens import Drawn, draw_tokens
from dualmask.ops.gaps import gap_index


class TrainingRules:
    """Rules of one training round.

    Deletions: the picker's, or given ones (teacher forcing), where the Gate opens. Counts: the inserter's draws or the
    labels'. Tokens: draws from the filler's most likely ones, which may carry a gradient into the next round.
    reference: whose decisions on the same draft ours are compared with.
    """

    decision: Decision
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
        scores = self.model.read(draft, given.keep_rate, self.state.written_prob, x_BTD)
        decision = decide_round(self.model.config, scores, given)
        if self.reference is not None:
            self.before = self.reference(x_BTD, draft, given.keep_rate, scores.masked_lm, self.state.written_prob)
        share = given.plan.stage.rollout.on_policy_counts
        self.completion = Completion(
            self.model,
            Deletion(draft, x_BTD, given.match, decision.deleted, decision.effective),
            given.target,
            given.plan,
            given.counter,
            on_policy=(noise.uniform(given.target.key, "own counts", given.counter) < share) & ~decision.compared,
            open_rows=given.live,
            told=told(given),
        )
        self.decision = decision
        return decision.deleted

    def count(self, remainder: Remainder) -> Tensor:
        return self.completion.count(remainder)

    def fill(self, opened: Opened) -> Tensor:
        self.completion.fill(opened)
        key, filler = self.given.target.key, self.completion.filler
        self.drawn = draw_tokens(self.model, opened.masked, filler, key, self.given.plan, self.given.counter)
        return self.drawn.tokens

    def out(self, result: RoundResult) -> RoundOut:
        """What the losses need of the round that these rules have decided."""
        given, decision, completion = self.given, self.decision, self.completion
        gate = self._gate_out()  # runs inserter and filler once more: at the same point of a round on every rank
        count_log_prob = self._count_log_prob(result)
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
            log_prob={**decision.log_prob, "token": self.drawn.log_prob, "count": count_log_prob},
            cost=completion.cost,
            divergence=None if self.before is None else decision.divergence(self.before, given),
        )

    def _gate_out(self) -> GateOut | None:
        """The Gate's decision with what both branches would have cost: the exact gradient of a binary gate."""
        stage, decision, cost = self.given.plan.stage, self.decision, self.completion.cost
        if "gate" not in stage.train:
            return None
        editing = decision.gate > 0.5
        edit = generate = torch.zeros_like(cost)
        if stage.gate_decides and stage.rollout.gate_rows > 0:  # the same on every rank
            rows = decision.compared.nonzero().squeeze(1)
            rows = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=rows.device)  # called by every rank
            other = cost.index_copy(0, rows, self._other_cost(rows, decision.proposed & ~editing[:, None]))
            edit, generate = torch.where(editing, cost, other), torch.where(editing, other, cost)
        compared = decision.compared & self.given.live
        return GateOut(decision.gate_logit, decision.gate, decision.free & self.given.live, compared, edit, generate)

    @torch.no_grad()
    def _other_cost(self, rows: Tensor, deleted: Tensor) -> Tensor:
        """[b] cost of the rows [b] if the Gate had decided otherwise, with the masks where they are missing."""
        given, deletion = self.given, replace(self.completion.deletion, deleted=deleted).rows(rows)
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        rules = Completion(
            self.model,
            deletion,
            given.target.rows(rows),
            given.plan,
            given.counter,
            on_policy=~everywhere,
            open_rows=everywhere,
            told=self.completion.told[rows],
        )
        tokens = deletion.draft.tokens
        play_round(tokens, deletion.draft.length, rules, width=tokens.shape[1])
        return rules.cost

    def _judged(self, result: RoundResult) -> Tensor:
        """[B, T] bool: deleted tokens of whose hole it is known what belongs there."""
        known = self.completion.holes.known
        gap = gap_index(result.opened.remainder.keep).clamp(0, known.shape[1] - 1)
        return result.deleted & known.gather(1, gap) & ~self.completion.on_policy[:, None]

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
        inserter = self.completion.inserter
        logits = inserter.gap_logits / max(self.given.plan.temperature, COLDEST)
        log_prob = logits.log_softmax(-1).gather(-1, result.count[..., None]).squeeze(-1)
        return (log_prob * inserter.gap_present).sum(1) * self.completion.on_policy


def told(given: RoundInput) -> Tensor:
    """[B] bool: texts in which inserter and filler know what the round deletes, as they do where a text is mended. Of a
    text that is to be shortened they learn nothing: what is left must be enough to restore it."""
    share = given.plan.stage.rollout.told_deletions
    return (noise.uniform(given.target.key, "told", given.counter) < share) & (given.keep_rate == 1)
