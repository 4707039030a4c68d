"""What comes out of the models: named tensors with their shapes. See docs/method.md for the symbols."""

# B batch, T tokens, M slots with a loss, D width; of a span: K places, N steps

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class FillerOut:
    """Logits over the vocabulary at chosen slots only: a [B, T, V] tensor is never made."""

    slot: Tensor  # [M] int64 index into the flattened [B·T'] sequence
    slot_weight: Tensor  # [M] float: weight in `recon`; 0 where the target is not known
    target: Tensor  # [M] int64 ids to restore
    logits: Tensor  # [M, V / tensor-parallel] (each rank holds its part of the vocabulary)
    loss: Tensor  # [M] cross entropy
    target_prob: Tensor  # [M] probability of the target, detached


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
