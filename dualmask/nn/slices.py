"""Slices of a parameter along one axis, which the tensor-parallel ranks hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slice:
    """Slice ``rank`` of ``size`` equal ones of a parameter."""

    shape: tuple[int, ...]  # of the slice
    axis: int | None  # along which the parameter is sliced; None: the slice is the whole parameter
    rank: int
    size: int

    @property
    def whole(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        if self.axis is None:
            return self.shape
        return (*self.shape[: self.axis], self.shape[self.axis] * self.size, *self.shape[self.axis + 1 :])

    def places(self, start: int, count: int) -> Tensor:
        """[count] int64: where the elements from ``start`` on of the flattened slice stand in the flattened whole."""
        own = torch.arange(start, start + count, device="cpu")
        if self.axis is None:
            return own
        block = math.prod(self.shape[self.axis :])  # elements of the slice that stand side by side in the whole
        return own // block * (block * self.size) + self.rank * block + own % block
