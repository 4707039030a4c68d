"""Where a stage's weights come from, read range by range, so that no rank ever has more than its own and one parameter.

``Partition.fill`` asks one of these, or the ``ShardFolder`` of a checkpoint, for each range that a rank keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from safetensors import safe_open
from torch import Tensor, nn

from dualmask.config.tree import ConfigError
from dualmask.inference.weights import SCALE
from dualmask.nn.initial import Rule, draw, rules_of
from dualmask.nn.parallel.slices import slice_of
from dualmask.training.shards import MODEL, WEIGHT, FlatRange


class Source(Protocol):
    @property
    def updates(self) -> int:
        """How many the optimizer had made; 0: there are weights alone."""
        ...

    def kinds(self, name: str) -> Sequence[str]:
        """What there is of a parameter (shards.py)."""
        ...

    def part(self, flat_range: FlatRange, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        """[count], on the CPU."""
        ...


class WeightSource:
    """Weights without a history of updates."""

    updates = 0

    def kinds(self, name: str) -> Sequence[str]:
        return (WEIGHT,)


class Drawn(WeightSource):
    """What a model begins with: a rule for each of its parameters, and the run's seed."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._rules: dict[str, Rule] = rules_of(model)
        self._seed = seed

    def part(self, flat_range: FlatRange, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        name = flat_range.name.removeprefix(MODEL)
        places = flat_range.slice(tensor_size).places(flat_range.start, flat_range.count)
        return draw(self._rules[name], self._seed, name, places)


class Exported(WeightSource):
    """The whole matrices of an export (``inference.weights``); ``otherwise``: of the modules that it lacks."""

    def __init__(self, file: Path, model: nn.Module, otherwise: Source) -> None:
        """Raises ConfigError for a weight that does not fit ``model``."""
        self._otherwise = otherwise
        self._file = safe_open(file, framework="pt")
        self._names = set(self._file.keys())
        self._scales = {name + SCALE for name in self._names} & self._names
        self._names -= self._scales
        known = {_module(name) for name in self._names}
        own = dict(model.named_parameters())
        for name, parameter in own.items():
            if _module(name) in known:
                self._check(name, slice_of(parameter).whole)
        self.fresh = sorted({_module(name) for name in own} - known)  # modules that begin anew

    def part(self, flat_range: FlatRange, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        name = flat_range.name.removeprefix(MODEL)
        if name not in self._names:
            return self._otherwise.part(flat_range, tensor_size, kind)
        shape, axis, rank = flat_range.shape, flat_range.axis, flat_range.tensor_rank
        row = math.prod(shape[1:])
        first, last = flat_range.start // row, -(-(flat_range.start + flat_range.count) // row)
        skipped = rank * shape[0] if axis == 0 else 0
        rows = slice(first + skipped, last + skipped)
        columns = slice(rank * shape[1], (rank + 1) * shape[1]) if axis == 1 else slice(None)
        whole = self._file.get_slice(name)
        read = (whole[rows, columns] if len(shape) > 1 else whole[rows]).float()
        if name + SCALE in self._scales:
            read *= self._file.get_slice(name + SCALE)[rows][:, None]
        begin = flat_range.start - first * row
        return read.flatten()[begin : begin + flat_range.count]

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._names:
            raise ConfigError(f"init: the weights lack {name}; begin with an export of this version")
        given = tuple(self._file.get_slice(name).get_shape())
        if given != shape:
            raise ConfigError(
                f"init: {name} has shape {given} instead of {shape}; begin with an export of the same model section"
            )


class Renamed(WeightSource):
    """The weights alone of a source, under other names: parameters that begin as others do."""

    def __init__(self, source: Source, name_of: Callable[[str], str]) -> None:
        self._source, self._name_of = source, name_of

    def part(self, flat_range: FlatRange, tensor_size: int, kind: str = WEIGHT) -> Tensor:
        named = replace(flat_range, name=self._name_of(flat_range.name))
        return self._source.part(named, tensor_size, kind)


def _module(name: str) -> str:
    return name.split(".", 1)[0]
