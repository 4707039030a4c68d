"""Exponential moving averages (EMA) of a model's weights, kept on each rank for its ZeRO shard only.

``WeightAverage`` is that of a run: what is exported in the stead of the last weights, if one wants that. It begins anew
in each stage, as the optimizer does: a stage copies trunks, freezes what learnt and teaches what was frozen, so that an
average over two stages would be of neither's model. What does not learn in a stage is its own average.

``MovingAverage`` is that of a task: a copy of the model, a teacher, which follows it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """average ← average + (1 − d) · (weight − average) behind each step, in float32, for what learns in a stage.

    Behind step n of the stage (from 0) d = min(decay, (1 + n) / (10 + n)): of a short stage, or one that begins with
    random weights, the average would else be the beginning.
    """

    def __init__(self, weights: Mapping[nn.Parameter, Tensor], decay: float) -> None:
        """``weights``: this rank's flat parts, as ``Partition.weights`` has them."""
        self.kept = {parameter: own.detach().float().clone() for parameter, own in weights.items()}
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def follow(self, weights: Mapping[nn.Parameter, Tensor]) -> None:
        """One update, with the weights behind a step."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for parameter, own in weights.items():
            self.kept[parameter].lerp_(own.float(), 1 - decay)
        self.updates += 1


class MovingAverage:
    """``copy`` ← copy + (1 − decay) · (original − copy), parameter by parameter.

    If the parameters are bfloat16, their average is kept in float32 as well: a step of 1 − decay = 0.001 of the
    difference is below the resolution of bfloat16, so the copy would not change.
    """

    def __init__(self, copy: nn.Module, original: nn.Module, decay: float) -> None:
        """Both as partitioned by the engine; ``copy`` is frozen and has the same layout."""
        self._pairs = list(zip(copy.parameters(), original.parameters(), strict=True))
        self._average = [
            _own(copied).float() for copied, _ in self._pairs
        ]  # float32 parameters: the same tensors, no copies
        self._decay = decay

    @torch.no_grad()
    def follow(self) -> None:
        """One update of the average."""
        for (copied, original), average in zip(self._pairs, self._average, strict=True):
            average.lerp_(_own(original).float(), 1 - self._decay)
            _own(copied).copy_(average)
            if hasattr(copied, "ds_tensor"):
                copied.partition()  # releases a gathered copy (small parameters stay gathered)

    @property
    def kept(self) -> dict[nn.Parameter, Tensor]:
        """For each parameter of the copy, the tensor to write to a checkpoint, in the layout of this rank's part."""
        return {copied: average for (copied, _), average in zip(self._pairs, self._average, strict=True)}


def _own(parameter: nn.Parameter) -> Tensor:
    """This rank's part of a parameter: under ZeRO-3 a flat part, otherwise the whole."""
    part: Tensor | None = getattr(parameter, "ds_tensor", None)
    return parameter.data if part is None else part.data
