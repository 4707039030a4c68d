"""What the parts of DualMaskLM say, what a round gives, and what passes from round to round (docs/method.md)."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots, N top tokens of a slot

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dualmask.families.edit.labels import Labels
from dualmask.nn.token_losses import ScoredSlots


@dataclass(frozen=True)
class PickerOut:
    delete_logit: Tensor  # [B, T] logit that what belongs there comes back if it is deleted, given who else is
    wrong_logit: Tensor  # [B, T] logit that the token does not belong where it stands
    keep_prob: Tensor  # [B, T] in (0, 1): p; 1 on BOS, EOS and padding
    keep: Tensor  # [B, T] float in {0, 1}: m, with the estimator's gradient


@dataclass(frozen=True)
class Doubt:
    """The filler's opinion of the visible tokens of a text with [MASK]s."""

    logit: Tensor  # [B, T] logit that the token does not belong where it stands
    wrong: Tensor  # [B, T] bool: that is so
    where: Tensor  # [B, T] bool: visible tokens


@dataclass(frozen=True)
class InserterOut:
    gap_logits: Tensor  # [B, G, K+1] log-odds of n = 0…K masks in the gap behind skeleton token j
    gap_present: Tensor  # [B, G] bool: both neighbours exist


@dataclass(frozen=True)
class GateOut:
    logit: Tensor  # [B] log-odds that the round edits
    value: Tensor  # [B] float in {0, 1}: the decision g, with the estimator's gradient
    free: Tensor  # [B] bool: the Gate decided; False: the start state or the first round did
    compared: Tensor  # [B] bool: both decisions were tried
    cost_edit: Tensor  # [B] nats a target token of the text that editing leads to, detached; where compared
    cost_generate: Tensor  # [B] the same for generating


@dataclass(frozen=True)
class RoundOut:
    """One round. Labels come from the alignment of the draft with the target (ops/alignment.py)."""

    draft: Tensor  # [B, T] what was read
    length: Tensor  # [B] of the draft
    match: Tensor  # [B, T] position in the target of each right token of the draft, -1 for the others
    deleted: Tensor  # [B, T] bool
    keep_rate: Tensor  # [B] requested share kept; 1: only what is wrong is to go
    gap_count: Tensor  # [B, G] number of target tokens missing in each gap of the skeleton
    judged: Tensor  # [B, T] bool: deleted tokens of whose hole it is known what belongs there
    restored: Tensor  # [B, T] there: the filler's probability of that; 1 where nothing does. Detached
    live: Tensor  # [B] float: 0 for texts that teach nothing in this round
    filler: ScoredSlots | None = None  # None: the stage asks nothing of the filler
    doubt: Doubt | None = None
    inserter: InserterOut | None = None
    picker: PickerOut | None = None
    gate: GateOut | None = None
    log_prob: dict[str, Tensor] | None = None  # by decision [B]: log-probability of what was decided, for `reinforce`
    cost: Tensor | None = None  # [B] nats a target token of the text that came out, detached
    divergence: Tensor | None = None  # [B] nats: KL of the round's decisions from those of a reference


@dataclass(frozen=True)
class SoftTokens:
    """Straight-through tokens: forward the drawn token, backward its relaxed distribution over the top tokens."""

    slot: Tensor  # [M] int64 index into the flattened [B·T] draft
    token: Tensor  # [M, N] ids
    weight: Tensor  # [M, N] float; the gradient goes here


@dataclass(frozen=True)
class RoundState:
    """A batch of drafts between two rounds."""

    tokens: Tensor  # [B, T] ids
    length: Tensor  # [B]
    kind: Tensor  # [B] int64 index into ops.starts.KINDS
    written_prob: Tensor  # [B, T] probability with which an earlier round wrote the token; 1: it was given
    done: Tensor  # [B] bool: a stop criterion held
    digest: Tensor  # [B, rounds so far] int64: drafts seen before
    soft: SoftTokens | None = None
    labels: Labels | None = None  # of these drafts; None: they are not being made

    def detach(self) -> RoundState:
        """The same drafts without a gradient into the rounds that made them."""
        return replace(self, soft=None)
