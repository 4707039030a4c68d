"""The first half of a round: does each text edit or generate, and which tokens go?"""

# B batch, T tokens

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.families.edit import starts
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.model import Reading
from dualmask.families.edit.picker import COLDEST, decide, describe
from dualmask.families.outputs import PickerOut
from dualmask.ops import deletion
from dualmask.ops.estimators import straight_through


@dataclass(frozen=True)
class Decision:
    picker: PickerOut
    wanted: Tensor  # [B, T] bool: what editing deletes
    deleted: Tensor  # [B, T] bool: what is deleted, the Gate considered
    effective: Tensor  # [B, T] float: 1 − g·(1 − m), with the estimators' gradients
    gate_logit: Tensor  # [B]
    gate: Tensor  # [B] float in {0, 1}, with the estimator's gradient
    free: Tensor  # [B] bool: the Gate decided
    compared: Tensor  # [B] bool: the other decision is to be tried as well
    odds: Odds  # that all this was drawn from
    log_prob: dict[str, Tensor]  # [B] of what was decided

    def divergence(self, theirs: Reading, draft: Batch, keep_rate: Tensor, temperature: float) -> Tensor:
        """[B] nats: KL of these decisions from those that another reading of the same draft leads to."""
        odds = decision_odds(theirs, self.wanted, draft, keep_rate, temperature)
        return self.odds.divergence(odds, draft.deletable, self.free)


def decide_round(
    config: EditConfig,
    reading: Reading,
    draft: Batch,
    match: Tensor,
    keep_rate: Tensor,
    kind: Tensor,
    plan: EditPlan,
    number: int,
    counter: int,
    live: Tensor,
) -> Decision:
    """All decisions of round ``number`` before the inserter. match [B, T]: labels, for the texts that follow them.

    live [B] bool: False leaves the text as it is.
    """
    how, temperature = plan.stage.rollout, plan.temperature
    spread = noise.logistic(draft.key, "pick", counter, draft.tokens.shape[1])
    wanted = decide(config, reading.logits, draft.deletable, keep_rate, spread, temperature)
    other, labelled = _others_deletions(draft, match, keep_rate, plan, counter)
    wanted = torch.where(labelled[:, None], other, wanted)
    picker = describe(config, reading.logits, wanted, draft.deletable, keep_rate, spread, temperature)
    gate, free = _gate(reading.gate_logit, draft, kind, keep_rate, plan, number, counter)
    odds = decision_odds(reading, wanted, draft, keep_rate, temperature)
    editing = gate.detach() > 0.5
    log_prob = odds.log_prob(wanted, draft.deletable, editing)
    compared = free & (noise.uniform(draft.key, "compare", counter) < how.gate_rows)
    return Decision(
        picker=picker,
        wanted=wanted,
        deleted=wanted & ((gate > 0.5) & live)[:, None],
        effective=1 - gate[:, None] * (1 - picker.keep),
        gate_logit=reading.gate_logit,
        gate=gate,
        free=free,
        compared=compared,
        odds=odds,
        log_prob={"delete": log_prob.delete.sum(1) * ~labelled, "gate": log_prob.gate * free},
    )


def _others_deletions(
    draft: Batch, match: Tensor, keep_rate: Tensor, plan: EditPlan, counter: int
) -> tuple[Tensor, Tensor]:
    """[B, T] deletions that the picker only judges, and [B] the texts that have them: random ones where a text is to be
    shortened, what the labels say where it is to be mended."""
    how, deleting = plan.stage.rollout, plan.stage.deletion
    mend = keep_rate == 1
    score = deletion.random_scores(draft.key, counter, draft.tokens.shape[1], deleting.span_share, deleting.mean_span)
    random = deletion.best_first(score, draft.deletable, deletion.budget(draft.deletable, keep_rate))
    share = torch.where(mend, how.teacher_forced_deletions, how.random_deletions)
    given = noise.uniform(draft.key, "oracle deletions", counter) < share
    return torch.where(mend[:, None], draft.deletable & (match < 0), random), given


def _gate(
    logit: Tensor, draft: Batch, kind: Tensor, keep_rate: Tensor, plan: EditPlan, number: int, counter: int
) -> tuple[Tensor, Tensor]:
    """g [B] and where the Gate itself decided [B]. A text that is to be shortened is edited. As long as the Gate learns
    nothing, or from labels alone, it decides nothing."""
    how = plan.stage.rollout
    rewrite = keep_rate < 1
    if not plan.stage.gate_decides:
        forced = starts.edits(kind) if number == 0 else torch.ones_like(rewrite)
        return (forced | rewrite).float(), torch.zeros_like(rewrite)
    first = torch.full_like(rewrite, number == 0 and how.first_round == "generate")
    spread = noise.logistic(draft.key, "gate", counter)
    hard = (logit.detach() + plan.temperature * spread > 0).float()
    if how.gate_estimator == "straight_through":
        hard = straight_through(hard, torch.sigmoid(logit))
    free = ~rewrite & ~first
    return torch.where(free, hard, rewrite.float()), free


@dataclass(frozen=True)
class Odds:
    """The distribution that the decisions of a round are drawn from."""

    delete: Tensor  # [B, T] log-odds that the token goes, if the round edits
    gate: Tensor  # [B] log-odds that the round edits

    def log_prob(self, deleted: Tensor, deletable: Tensor, editing: Tensor) -> LogProb:
        """Of deleting the tokens ``deleted`` [B, T], and of editing (or not) as ``editing`` [B] says. Tokens that stay
        because the Gate is closed were not the picker's decision."""
        each = logsigmoid(torch.where(deleted, self.delete, -self.delete))
        gate = logsigmoid(torch.where(editing, self.gate, -self.gate))
        return LogProb(each * (deletable & editing[:, None]), gate)

    def divergence(self, theirs: Odds, deletable: Tensor, free: Tensor) -> Tensor:
        """[B] nats: KL(these ‖ theirs), summed over a text's tokens and, where it decides (free [B]), its Gate."""
        tokens = (bernoulli_kl(self.delete, theirs.delete) * deletable).sum(1)
        return tokens + bernoulli_kl(self.gate, theirs.gate) * free


@dataclass(frozen=True)
class LogProb:
    delete: Tensor  # [B, T] of each token's decision, 0 where none was taken
    gate: Tensor  # [B]


def decision_odds(reading: Reading, deleted: Tensor, draft: Batch, keep_rate: Tensor, temperature: float) -> Odds:
    """At this temperature, where tokens ``deleted`` [B, T] go."""
    delete = reading.logits.odds(deleted, draft.deletable, keep_rate, temperature)
    return Odds(delete, reading.gate_logit / max(temperature, COLDEST))


def bernoulli_kl(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL(ours ‖ theirs) in nats from log-odds, elementwise."""
    return torch.sigmoid(ours) * (ours - theirs) - softplus(ours) + softplus(theirs)
