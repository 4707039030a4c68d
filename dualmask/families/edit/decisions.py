"""The first half of a round: does each text edit or generate, and which tokens go?"""

# B batch, T tokens

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.families.edit import starts
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.labels import Labels
from dualmask.families.edit.model import DraftScores
from dualmask.families.edit.outputs import PickerOut
from dualmask.families.edit.picker import COLDEST, decide, describe
from dualmask.ops import deletion
from dualmask.ops.estimators import straight_through


@dataclass(frozen=True)
class RoundInput:
    """What a training round starts from."""

    draft: Batch
    target: Batch
    labels: Labels
    keep_rate: Tensor  # [B] requested share kept; 1: only what is wrong is to go
    kind: Tensor  # [B] the start state, index into ``starts.KINDS``
    live: Tensor  # [B] bool: False leaves the text as it is
    plan: EditPlan
    number: int  # of the round, from 0
    counter: int  # of the random streams

    @cached_property
    def match(self) -> Tensor:
        """[B, T] position in the target of each right token of the draft, -1 for the others. Waits for the labels."""
        return self.labels.on(self.draft.tokens.device)

    @property
    def asked_rate(self) -> Tensor | None:
        """[B] the requested share kept; None: no text is to be shortened, as in every round but the first."""
        return self.keep_rate if self.number == 0 else None


@dataclass(frozen=True)
class Decision:
    picker: PickerOut
    proposed: Tensor  # [B, T] bool: what editing deletes
    deleted: Tensor  # [B, T] bool: what is deleted, the Gate considered
    effective: Tensor  # [B, T] float: 1 − g·(1 − m), with the estimators' gradients
    gate_logit: Tensor  # [B]
    gate: Tensor  # [B] float in {0, 1}, with the estimator's gradient
    free: Tensor  # [B] bool: the Gate decided
    compared: Tensor  # [B] bool: the other decision is to be tried as well
    are_given: Tensor  # [B] bool: the deletions were not the picker's choice
    scores: DraftScores
    given: RoundInput

    @cached_property
    def odds(self) -> Odds:
        """What all this was drawn from."""
        return self._odds_of(self.scores)

    @cached_property
    def log_prob(self) -> dict[str, Tensor]:
        """[B] of what was decided."""
        log_prob = self.odds.log_prob(self.proposed, self.given.draft.deletable, self.gate.detach() > 0.5)
        return {"delete": log_prob.delete.sum(1) * ~self.are_given, "gate": log_prob.gate * self.free}

    def divergence(self, reference: DraftScores) -> Tensor:
        """[B] nats: KL of these decisions from those that the scores of a reference on the same draft lead to."""
        return self.odds.divergence(self._odds_of(reference), self.given.draft.deletable, self.free)

    def _odds_of(self, scores: DraftScores) -> Odds:
        given = self.given
        return decision_odds(scores, self.proposed, given.draft, given.asked_rate, given.plan.temperature)


def decide_round(config: EditConfig, scores: DraftScores, given: RoundInput) -> Decision:
    """All decisions of a round before the inserter."""
    draft, keep_rate, temperature = given.draft, given.asked_rate, given.plan.temperature
    logistic_noise = noise.logistic(draft.key, "pick", given.counter, draft.tokens.shape[1])
    proposed = decide(config, scores.logits, draft.deletable, keep_rate, logistic_noise, temperature)
    given_deletions, are_given = _given_deletions(given)
    proposed = torch.where(are_given[:, None], given_deletions, proposed)
    picker = describe(config, scores.logits, proposed, draft.deletable, keep_rate, logistic_noise, temperature)
    gate, free = _gate(scores.gate_logit, given)
    compared = free & (noise.uniform(draft.key, "compare", given.counter) < given.plan.stage.rollout.gate_rows)
    return Decision(
        picker=picker,
        proposed=proposed,
        deleted=proposed & ((gate > 0.5) & given.live)[:, None],
        effective=1 - gate[:, None] * (1 - picker.keep),
        gate_logit=scores.gate_logit,
        gate=gate,
        free=free,
        compared=compared,
        are_given=are_given,
        scores=scores,
        given=given,
    )


def _given_deletions(given: RoundInput) -> tuple[Tensor, Tensor]:
    """[B, T] deletions that the picker only judges, and [B] the texts that have them: random ones where a text is to be
    shortened, what the labels say where it is to be mended (teacher forcing)."""
    draft, rollout, deleting = given.draft, given.plan.stage.rollout, given.plan.stage.deletion
    wrong, draw = draft.deletable & (given.match < 0), noise.uniform(draft.key, "oracle deletions", given.counter)
    if given.asked_rate is None:
        return wrong, draw < rollout.teacher_forced_deletions
    mend = given.keep_rate == 1
    score = deletion.random_scores(
        draft.key, given.counter, draft.tokens.shape[1], deleting.span_share, deleting.mean_span
    )
    random = deletion.best_first(score, draft.deletable, deletion.budget(draft.deletable, given.keep_rate))
    share = torch.where(mend, rollout.teacher_forced_deletions, rollout.random_deletions)
    return torch.where(mend[:, None], wrong, random), draw < share


def _gate(logit: Tensor, given: RoundInput) -> tuple[Tensor, Tensor]:
    """g [B] and where the Gate itself decided [B]. A text that is to be shortened is edited. As long as the Gate learns
    nothing, or from labels alone, it decides nothing."""
    plan, rollout = given.plan, given.plan.stage.rollout
    shorten, first_round = given.keep_rate < 1, given.number == 0
    if not plan.stage.gate_decides:
        forced = starts.edits(given.kind) if first_round else torch.ones_like(shorten)
        return (forced | shorten).float(), torch.zeros_like(shorten)
    generates = torch.full_like(shorten, first_round and rollout.first_round == "generate")
    logistic_noise = noise.logistic(given.draft.key, "gate", given.counter)
    hard = (logit.detach() + plan.temperature * logistic_noise > 0).float()
    if rollout.gate_estimator == "straight_through":
        hard = straight_through(hard, torch.sigmoid(logit))
    free = ~shorten & ~generates
    return torch.where(free, hard, shorten.float()), free


@dataclass(frozen=True)
class Odds:
    """The distribution that the decisions of a round are drawn from."""

    delete: Tensor  # [B, T] log-odds that the token goes, if the round edits
    gate: Tensor  # [B] log-odds that the round edits

    def log_prob(self, deleted: Tensor, deletable: Tensor, editing: Tensor) -> LogProb:
        """Of deleting the tokens ``deleted`` [B, T], and of editing (or not) as ``editing`` [B] says. Tokens that stay
        because the Gate is closed were not the picker's decision."""
        delete = logsigmoid(torch.where(deleted, self.delete, -self.delete))
        gate = logsigmoid(torch.where(editing, self.gate, -self.gate))
        return LogProb(delete * (deletable & editing[:, None]), gate)

    def divergence(self, reference: Odds, deletable: Tensor, free: Tensor) -> Tensor:
        """[B] nats: KL from those of a reference, summed over a text's tokens and, where it decides (free [B]), its
        Gate."""
        tokens = (bernoulli_kl(self.delete, reference.delete) * deletable).sum(1)
        return tokens + bernoulli_kl(self.gate, reference.gate) * free


@dataclass(frozen=True)
class LogProb:
    delete: Tensor  # [B, T] of each token's decision, 0 where none was taken
    gate: Tensor  # [B]


def decision_odds(
    scores: DraftScores, deleted: Tensor, draft: Batch, keep_rate: Tensor | None, temperature: float
) -> Odds:
    """At this temperature, where tokens ``deleted`` [B, T] go."""
    delete = scores.logits.odds(deleted, draft.deletable, keep_rate, temperature)
    return Odds(delete, scores.gate_logit / max(temperature, COLDEST))


def bernoulli_kl(logit: Tensor, reference: Tensor) -> Tensor:
    """KL(Bernoulli(σ(logit)) ‖ Bernoulli(σ(reference))) in nats, elementwise."""
    return torch.sigmoid(logit) * (logit - reference) - softplus(logit) + softplus(reference)
