"""The input of a model: one batch of token sequences."""

# B batch, T tokens

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualmask.core import host

Counts = NDArray[np.int64]


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
    host_length  [B] ``length``, of batches that came from the host: it need not wait for the device to know it
    texts_in_row  [R] how many of the sequences, in order, shared each packed row; None: each had its own
    """

    tokens: Tensor
    length: Tensor
    key: Tensor
    host_length: Counts | None = field(default=None, kw_only=True)
    texts_in_row: Counts | None = field(default=None, kw_only=True)

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

    @property
    def lengths(self) -> Counts | None:
        """[B] ``length`` for the host; None: only the device knows it."""
        return self.length.numpy() if self.host_length is None and host.readable(self.length) else self.host_length

    def to(self, device: torch.device | str) -> Self:
        moved = {name: host.to_device(plane, torch.device(device)) for name, plane in self._planes().items()}
        return replace(self, host_length=self.lengths, **moved)

    @property
    def texts_per_row(self) -> float:
        """What a loss that is a mean over texts is multiplied by, so that each text weighs the same in any batch."""
        return 1.0 if self.texts_in_row is None else len(self.length) / len(self.texts_in_row)

    def parts(self, number: int) -> list[Self]:
        """``number`` parts of equally many rows."""
        if self.texts_in_row is None:
            size = len(self.length) // number
            return [self.rows(slice(first, first + size)) for first in range(0, number * size, size)]
        counts = np.split(self.texts_in_row, number)
        ends = [0, *itertools.accumulate(int(count.sum()) for count in counts)]
        parts = [self.rows(slice(*two)) for two in itertools.pairwise(ends)]
        return [replace(part, texts_in_row=count) for part, count in zip(parts, counts, strict=True)]

    def rows(self, part: slice | Tensor) -> Self:
        """Some of the sequences."""
        known = self.host_length[part] if self.host_length is not None and isinstance(part, slice) else None
        return replace(
            self, host_length=known, texts_in_row=None, **{name: plane[part] for name, plane in self._planes().items()}
        )

    def _planes(self) -> dict[str, Tensor]:
        """The tensors, by name; each has a row for each sequence."""
        planes = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: plane for name, plane in planes.items() if isinstance(plane, Tensor)}
