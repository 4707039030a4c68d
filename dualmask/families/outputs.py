"""What comes out of the models: named tensors with their shapes. See docs/method.md for the symbols."""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots with a loss, N top tokens of a slot, D width
# of a span: K places, N steps

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PickerOut:
    delete_logit: Tensor  # [B, T] logit that what belongs there comes back if it is deleted, given who else is
    wrong_logit: Tensor  # [B, T] logit that the token does not belong where it stands
    keep_prob: Tensor  # [B, T] in (0, 1): p; 1 on BOS, EOS and padding
    keep: Tensor  # [B, T] float in {0, 1}: m, with the estimator's gradient


@dataclass(frozen=True)
class InserterOut:
    gap_logits: Tensor  # [B, G, K+1] log-odds of n = 0…K masks in the gap behind skeleton token j
    gap_present: Tensor  # [B, G] bool: both neighbours exist


@dataclass(frozen=True)
class FillerOut:
    """Logits over the vocabulary at chosen slots only: a [B, T, V] tensor is never made."""

    slot: Tensor  # [M] int64 index into the flattened [B·T'] sequence
    slot_weight: Tensor  # [M] float: weight in `recon`; 0 where the target is not known
    target: Tensor  # [M] int64 ids to restore
    logits: Tensor  # [M, V / tensor-parallel] (each rank holds its part of the vocabulary)
    loss: Tensor  # [M] cross entropy
    target_prob: Tensor  # [M] probability of the target, detached

    def losses_by_position(self, tokens: Tensor) -> Tensor:
        """[B, T'] float: the loss at each slot of tokens [B, T'], and 0 where there is none."""
        losses = torch.zeros(tokens.numel(), device=self.loss.device)
        return losses.scatter(0, self.slot, self.loss.float()).view(tokens.shape)


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
    match: Tensor  # [B, T] place in the target of each right token of the draft, -1 for the others
    deleted: Tensor  # [B, T] bool
    keep_rate: Tensor  # [B] asked share kept; 1: only what is wrong is to go
    gap_count: Tensor  # [B, G] number of target tokens missing in each gap of the skeleton
    judged: Tensor  # [B, T] bool: deleted tokens of whose hole it is known what belongs there
    restored: Tensor  # [B, T] there: the filler's probability of that; 1 where nothing does. Detached
    live: Tensor  # [B] float: 0 for texts that teach nothing in this round
    filler: FillerOut | None = None  # None: the stage asks nothing of the filler
    inserter: InserterOut | None = None
    picker: PickerOut | None = None
    gate: GateOut | None = None
    log_prob: dict[str, Tensor] | None = None  # by decision [B]: log-probability of what was decided, for `reinforce`
    cost: Tensor | None = None  # [B] nats a target token of the text that came out, detached
    divergence: Tensor | None = None  # [B] nats: KL of the round's decisions from those of a reference


@dataclass(frozen=True)
class SoftTokens:
    """Straight-through tokens: forward the drawn token, backward its relaxed distribution over the top tokens."""

    place: Tensor  # [M] int64 index into the flattened [B·T] draft
    token: Tensor  # [M, N] ids
    weight: Tensor  # [M, N] float; the gradient goes here


@dataclass(frozen=True)
class RoundState:
    """A batch of drafts between two rounds."""

    tokens: Tensor  # [B, T] ids
    length: Tensor  # [B]
    kind: Tensor  # [B] int64 index into ops.starts.KINDS
    sure: Tensor  # [B, T] probability with which an earlier round wrote the token; 1: it was given
    done: Tensor  # [B] bool: a stop criterion held
    digest: Tensor  # [B, rounds so far] int64: drafts seen before
    soft: SoftTokens | None = None

    def detach(self) -> RoundState:
        """The same drafts without a gradient into the rounds that made them."""
        return replace(self, soft=None)


@dataclass(frozen=True)
class SpanOut:
    """A span's refinement, all of its N steps; those behind a text's own last one are what would have followed."""

    ar: FillerOut  # every next token of the whole text
    target: Tensor  # [B, K]
    nats: Tensor  # [B, N, K] cross entropy of the encoder's logits
    pred_nats: Tensor | None  # [B, N, K] of the decoder's own; None: not asked for
    open: Tensor  # [B, N, K] bool: not written before the step
    pick: Tensor  # [B, N, K] bool: written in it
    forced: Tensor  # [B] bool: the true tokens were written
    go_on: Tensor  # [B, N] the gate's decision in {0, 1}, or its probability, with the estimator's gradient
    gate_logits: Tensor  # [B, N, 2]
    mean_entropy: Tensor  # [B, N] nats, what the gate read; detached
    stop: Tensor  # [B] index of each text's own last step
    z: Tensor  # [B, K, D] the encoder's states there
    z_teacher: Tensor | None = None  # [B, K, D] the teacher's at its own last step, detached

    def with_teacher(self, z_teacher: Tensor) -> SpanOut:
        return replace(self, z_teacher=z_teacher.detach())


@dataclass(frozen=True)
class SpanDraft:
    """A span as the model writes it when nothing is drawn: what people are shown."""

    prompt_length: Tensor  # [B]
    target: Tensor  # [B, K]
    written: Tensor  # [B, N, K] ids behind each step, [PRED] where open
    filled: Tensor  # [B, N, K] ids if the text stops there
    mean_entropy: Tensor  # [B, N] nats
    stop: Tensor  # [B] index of each text's own last step
