"""The input of a model: one batch of token sequences."""

# B batch, T tokens

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dualmask.core import host


def present(length: Tensor, width: int) -> Tensor:
    """[B, T] bool: not padding, for sequences of ``length`` [B] in rows of ``width`` tokens."""
    return torch.arange(width, device=length.device) < length[:, None]


def deletable(length: Tensor, width: int) -> Tensor:
    """[B, T] bool: neither padding nor BOS nor EOS."""
    position = torch.arange(width, device=length.device)
    return (position > 0) & (position < length[:, None] - 1)


@dataclass(frozen=True)
class Batch:
    """A batch of sequences ``<bos> … <eos>``, padded on the right.

    tokens  [B, T] int64 ids; positions from ``length`` on are padding and must not influence any result
    length  [B]    int64, BOS and EOS included (2 … T)
    key     [B]    int64, the sequence's random key: every draw for a sequence is a function of its key (see
                   ``core.noise``), so results depend neither on the rest of the batch nor on the number of ranks
    """

    tokens: Tensor
    length: Tensor
    key: Tensor

    def __post_init__(self) -> None:
        assert self.tokens.ndim == 2
        assert self.length.shape == self.key.shape == self.tokens.shape[:1]

    @cached_property
    def present(self) -> Tensor:
        """[B, T] bool: not padding."""
        return present(self.length, self.tokens.shape[1])

    @cached_property
    def deletable(self) -> Tensor:
        """[B, T] bool: neither padding nor BOS nor EOS."""
        return deletable(self.length, self.tokens.shape[1])

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(host.to_device(plane, torch.device(device)) for plane in (self.tokens, self.length, self.key)))

    def rows(self, part: slice | Tensor) -> Batch:
        return Batch(self.tokens[part], self.length[part], self.key[part])
