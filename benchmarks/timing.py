"""Interleaved timing, and the rows of a result file that sum up repeated measurements.

The arms of a comparison follow one another within each repeat, so that a ratio is of the same moment. Arms that
train run in processes of their own: what one of them does between two batches is timed, so a trainer that owns its
loop is measured as it is, and no arm feels what another one's libraries have patched or cached.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch

from benchmarks.ranks import CLOSED, Ranks
from dualmask.evaluation.statistics import Row

Name = TypeVar("Name")
Value = TypeVar("Value")
Item = TypeVar("Item")
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # operations a second, bfloat16, without sparsity
NUMBERS = ("metric", "value", "lo", "hi", "n")  # of a row; what else it says are its dimensions


@dataclass(frozen=True)
class Seconds:
    wall: float  # on CUDA: between two events of the device
    cpu: float  # of all threads of the process: does not grow while others use the cores


class Stopwatch:
    def __init__(self) -> None:
        self._events = None
        if torch.cuda.is_available():
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            self._events[0].record()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> Seconds:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        if self._events is not None:
            self._events[1].record()
            torch.cuda.synchronize()
            wall = self._events[0].elapsed_time(self._events[1]) / 1000
        return Seconds(wall, cpu)


def interleave(
    arms: Mapping[Name, Callable[[int], Value]], repeats: int, *, warm_up: int = 0
) -> dict[Name, list[Value]]:
    """What each arm returns, given the number of the repeat, in every repeat behind the first ``warm_up`` ones.

    Every other repeat goes through the arms backwards.
    """
    measured: dict[Name, list[Value]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(warm_up + repeats):
        for name in names if number % 2 else reversed(names):
            value = arms[name](number)
            if number >= warm_up:
                measured[name].append(value)
    return measured


@dataclass(frozen=True)
class Arm(Generic[Item]):
    """``train(items)`` consumes what ``make(number)`` gives, one item a step. Both must be importable."""

    train: Callable[[Iterator[Item]], None]
    make: Callable[[int], Item]
    ranks: int = 1


def interleave_steps(arms: Mapping[str, Arm], repeats: int, *, warm_up: int = 2) -> dict[str, list[Seconds]]:
    """Times of the steps of arms, each in processes of its own.

    Raises RuntimeError, with the arm's name, if one ends by itself.
    """
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(Ranks(f"arm {name}", partial(_train, arm), arm.ranks))
            for name, arm in arms.items()
        }
        return interleave({name: partial(_step, ranks) for name, ranks in running.items()}, repeats, warm_up=warm_up)


def _step(ranks: Ranks, number: int) -> Seconds:
    """Of the slowest rank."""
    ranks.send(number)
    each: list[Seconds] = ranks.receive()
    return Seconds(max(one.wall for one in each), max(one.cpu for one in each))


def _train(arm: Arm[Item], pipe: Connection) -> None:
    """In the arm's own process: an item for every number that comes, and the time until the next one is wanted."""

    def items() -> Iterator[Item]:
        try:
            while True:
                item = arm.make(pipe.recv())
                watch = Stopwatch()
                yield item
                pipe.send(watch.read())
        except CLOSED:
            return

    arm.train(items())


def load() -> float:
    """Processes that want a core, over the last minute and over the cores: above 1 they wait for one another."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def peak_rate() -> float | None:
    """Operations a second that the device could do; None: not known."""
    if not torch.cuda.is_available():
        return None
    return next((rate for name, rate in PEAKS.items() if name in torch.cuda.get_device_name()), None)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def median_row(metric: str, values: Sequence[float], **dimensions: Any) -> Row:
    """The median, and the least and greatest."""
    return {
        "metric": metric,
        "value": statistics.median(values),
        "lo": min(values),
        "hi": max(values),
        "n": len(values),
        **dimensions,
    }


def print_rows(rows: Sequence[Row]) -> None:
    """A line each: metric, dimensions (numbers with their names), median, least … greatest."""
    for row in rows:
        words = [
            str(value) if isinstance(value, str) else f"{name} {value}"
            for name, value in row.items()
            if name not in NUMBERS
        ]
        spread = f"{row['value']:16,.3f}   ({row['lo']:,.3f} … {row['hi']:,.3f})"
        print(f"{row['metric']:30} {' '.join(words):38} {spread}", flush=True)
