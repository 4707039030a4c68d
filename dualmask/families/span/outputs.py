"""What comes out of a span's refinement: named tensors with their shapes."""

# B batch, K positions of a span, N steps, D width

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dualmask.nn.token_losses import ScoredSlots


@dataclass(frozen=True)
class SpanOut:
    """A span's refinement, all of its N steps; those behind a text's own last one are what would have followed."""

    ar: ScoredSlots  # every next token of the whole text
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
