"""What goes into a model: one batch of token sequences. Knows ids; knows nothing of text."""

# B batch, T tokens

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def present(length: Tensor, width: int) -> Tensor:
    """[B, T] bool: not padding, for sequences of ``length`` [B] in rows of ``width`` places."""
    return torch.arange(width, device=length.device) < length[:, None]


def deletable(length: Tensor, width: int) -> Tensor:
    """[B, T] bool: neither padding nor BOS nor EOS."""
    place = torch.arange(width, device=length.device)
    return (place > 0) & (place < length[:, None] - 1)


@dataclass(frozen=True)
class Batch:
    """A batch of sequences ``<bos> … <eos>``, padded on the right.

    tokens  [B, T] int64 ids; whatever stands at or behind ``length`` is padding and must not influence anything
    length  [B]    int64, BOS and EOS included (2 … T)
    key     [B]    int64, the sequence's own random key: every draw made for a sequence is a function of its key
                   (see ``ops.noise``), so results depend neither on its companions nor on the number of ranks
    """

    tokens: Tensor
    length: Tensor
    key: Tensor

    def __post_init__(self) -> None:
        assert self.tokens.ndim == 2
        assert self.length.shape == self.key.shape == self.tokens.shape[:1]

    @property
    def present(self) -> Tensor:
        """[B, T] bool: not padding."""
        return present(self.length, self.tokens.shape[1])

    @property
    def deletable(self) -> Tensor:
        """[B, T] bool: neither padding nor BOS nor EOS."""
        return deletable(self.length, self.tokens.shape[1])

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.tokens.to(device), self.length.to(device), self.key.to(device))

    def rows(self, part: slice | Tensor) -> Batch:
        return Batch(self.tokens[part], self.length[part], self.key[part])
