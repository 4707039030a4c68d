"""Regions: sets of gaps that share one total of masks. A whole text is one, each hole of an infill is one."""

# N drafts, G gaps, R regions of all drafts, C gaps of the largest region

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regions:
    """Gaps re-arranged so that a row is a region.

    row, region  [R] draft, and the region's number in it
    exists       [R, C] bool
    """

    row: Tensor
    region: Tensor
    exists: Tensor
    _source: tuple[Tensor, Tensor]  # draft and gap of every open gap
    _target: tuple[Tensor, Tensor]  # the same gap's row and column here

    def take(self, values: Tensor) -> Tensor:
        """[R, C, …] from values [N, G, …]; 0 where no gap is."""
        out = values.new_zeros(*self.exists.shape, *values.shape[2:])
        out[self._target] = values[self._source]
        return out

    def put(self, values: Tensor, shape: torch.Size) -> Tensor:
        """[N, G] = ``shape`` from values [R, C]; 0 where no mask may go."""
        out = values.new_zeros(shape)
        out[self._source] = values[self._target]
        return out


def gather_regions(region: Tensor, open_gaps: Tensor) -> Regions:
    """From the region [N, G] ≥ 0 of every open gap [N, G]."""
    draft, gap = open_gaps.nonzero(as_tuple=True)
    most = int(region.max()) + 1 if region.numel() else 1
    code = draft * most + region[draft, gap]
    order = code.argsort(stable=True)
    draft, gap = draft[order], gap[order]
    codes, index, size = code[order].unique_consecutive(return_inverse=True, return_counts=True)
    column = torch.arange(len(draft), device=draft.device) - (size.cumsum(0) - size)[index]
    widest = int(size.max()) if len(size) else 0
    exists = torch.arange(widest, device=draft.device) < size[:, None]
    return Regions(codes // most, codes % most, exists, (draft, gap), (index, column))
