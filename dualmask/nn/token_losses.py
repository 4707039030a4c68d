"""Logits at chosen slots and their losses: what every family's predictions of tokens come out as."""

# B batch, T tokens, M slots, D width, V vocabulary

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.nn.parallel.vocabulary import cross_entropy


@dataclass(frozen=True)
class ScoredSlots:
    """Logits over the vocabulary at chosen slots only: a [B, T, V] tensor is never made."""

    slot: Tensor  # [M] int64 index into the flattened [B·T'] sequence
    slot_weight: Tensor  # [M] float: weight of its loss; 0 where the target is not known
    target: Tensor  # [M] int64 ids that belong there
    logits: Tensor  # [M, V / tensor-parallel] (each rank holds its part of the vocabulary)
    loss: Tensor  # [M] cross entropy
    target_prob: Tensor  # [M] probability of the target, detached

    def losses_by_position(self, tokens: Tensor) -> Tensor:
        """[B, T'] float: the loss at each slot of tokens [B, T'], and 0 where there is none."""
        losses = torch.zeros(tokens.numel(), device=self.loss.device)
        return losses.scatter(0, self.slot, self.loss.float()).view(tokens.shape)


def slots(where: Tensor, number: int | None = None) -> Tensor:
    """[M] int64 the flattened places at which ``where`` holds.

    number: M, where the host knows it; None: the host waits for the device, which alone knows it.
    """
    flat = where.flatten()
    return (flat.nonzero() if number is None else flat.nonzero_static(size=number)).squeeze(1)


def scored(logits: Tensor, slot: Tensor, weight: Tensor, target: Tensor) -> ScoredSlots:
    """Logits [M, V / tensor] at the slots [M] against the targets [M]."""
    loss = cross_entropy(logits, target)
    return ScoredSlots(slot, weight, target, logits, loss, torch.exp(-loss.detach()))


def next_tokens(batch: Batch, states: Tensor, logits: Callable[[Tensor, Tensor], Tensor]) -> ScoredSlots:
    """The loss of every next token, EOS included, from a causal trunk's states [B, T, D].

    logits: (states, slots [M] of the flattened states) → [M, V / tensor].
    """
    slot = nn.functional.pad(batch.present[:, 1:], (0, 1)).flatten().nonzero().squeeze(1)
    weight = torch.ones_like(slot, dtype=torch.float)
    return scored(logits(states, slot), slot, weight, batch.tokens.flatten()[slot + 1])


def mean_token_loss(out: ScoredSlots, batch: Batch, given: int) -> Tensor:
    """The slots' losses, weighted, over the tokens that a batch of full-length sequences predicts; a scalar in nats.

    ``given``: tokens of a sequence that the model does not predict. Divided by the expected number, not by the counted
    one, so that the loss of a batch is the mean of the losses of its parts, whatever the ranks and micro-batches.
    """
    rows, width = batch.tokens.shape
    return (out.loss * out.slot_weight).sum() / (rows * (width - given))
