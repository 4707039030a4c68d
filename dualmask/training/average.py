"""A copy of a model that follows it slowly: the moving average of its weights, kept on the shards of each rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingAverage:
    """``copy`` ← copy + (1 − decay) · (original − copy), parameter by parameter.

    Where parameters are rounded to bfloat16, their average is kept beside them in float32: a step of 1 − decay = 0.001
    of the difference is less than bfloat16 resolves, and the copy would stand still.
    """

    def __init__(self, copy: nn.Module, original: nn.Module, decay: float) -> None:
        """Both as the engine has divided them among the ranks; ``copy`` frozen, and alike in its layout."""
        self._pairs = list(zip(copy.parameters(), original.parameters(), strict=True))
        self._average = [_own(mine).float() for mine, _ in self._pairs]  # float32: the very same tensors
        self._decay = decay

    @torch.no_grad()
    def follow(self) -> None:
        """One step towards the original."""
        for (mine, theirs), average in zip(self._pairs, self._average, strict=True):
            average.lerp_(_own(theirs).float(), 1 - self._decay)
            _own(mine).copy_(average)
            if hasattr(mine, "ds_tensor"):
                mine.partition()  # forget what was gathered of it (small parameters are for good)

    @property
    def kept(self) -> dict[nn.Parameter, Tensor]:
        """Parameter of the copy → what stands for it in a checkpoint, of the layout that this rank keeps."""
        return {mine: average for (mine, _), average in zip(self._pairs, self._average, strict=True)}


def _own(parameter: nn.Parameter) -> Tensor:
    """What this rank keeps of a parameter: under ZeRO-3 a part of it, flat."""
    part: Tensor | None = getattr(parameter, "ds_tensor", None)
    return parameter.data if part is None else part.data
