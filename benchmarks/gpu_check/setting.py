"""What a section of the kit is told, and how it stops in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.runs import SIZES, Size
from dualmask.evaluation.statistics import Row

Item = TypeVar("Item")
SMALLEST = Size(hidden=32, layers=2, heads=2, length=24, sequences=4, vocabulary=200)


class OutOfTime(Exception):
    """Says what was left out."""


@dataclass(frozen=True)
class Setting:
    out: Path  # folder of the results
    tiny: bool = False  # models of some thousand parameters: shows that a section runs, and nothing else
    seconds: float = 3600.0  # after which a section begins nothing new
    began: float = field(default_factory=time.monotonic)
    clock: Callable[[], float] = time.monotonic

    @property
    def cuda(self) -> bool:
        return torch.cuda.is_available()

    @property
    def sizes(self) -> dict[str, Size]:
        return {"tiny": SMALLEST} if self.tiny else {name: SIZES[name] for name in ("125m", "350m")}

    @property
    def size(self) -> Size:
        """Of the sections that look at one size."""
        return next(iter(self.sizes.values()))

    def in_time(self, items: Sequence[Item]) -> Iterator[Item]:
        """One after the other. Raises OutOfTime instead of beginning one when the time is over."""
        for number, item in enumerate(items):
            if self.clock() - self.began > self.seconds:
                raise OutOfTime(f"{len(items) - number} of {len(items)} left out, from {item} on")
            yield item


def row(metric: str, value: float, *, ok: bool | None = None, **dimensions: Any) -> Row:
    """``ok``: whether it is as it must be; None: nothing is demanded of it."""
    verdict = {} if ok is None else {"ok": ok}
    return {"metric": metric, "value": value, "n": 1, **dimensions, **verdict}


def wrong(what: str, reason: object) -> Row:
    """Something that could not be measured."""
    return row("failure", 1, ok=False, what=what, reason=" ".join(str(reason).split())[-300:])
