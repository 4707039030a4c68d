"""Interleaved timing, and the rows of a result file that sum up repeated measurements.

The arms of a comparison follow one another within each repeat, so that a ratio is of the same moment. Arms that
train run in processes of their own: what one of them does between two batches is timed, so a trainer that owns its
loop is measured as it is, and no arm feels what another one's libraries have patched or cached.

On a GPU interleaved arms would share the memory: there ``take_turns`` gives each the whole card, one after the other.
"""

from __future__ import annotations

import math
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
LEAST_STEPS = 3  # of an arm whose time is limited
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


def take_turns(
    arms: Mapping[str, Arm], order: Sequence[str], repeats: int, *, warm_up: int = 3, most_seconds: float = math.inf
) -> Iterator[tuple[str, list[Seconds] | RuntimeError]]:
    """Name and times of the steps of each arm of ``order``, in which an arm may stand twice. One ends, and gives back
    its memory, before the next begins. All import their libraries at once, before the first one begins.

    An arm whose steps last longer than ``most_seconds`` has fewer of them, but three. One that ends by itself gives the
    error that says so.
    """
    with ExitStack() as stack:
        waiting = [
            (name, stack.enter_context(Ranks(f"arm {name}", partial(_train, arms[name], late=True), arms[name].ranks)))
            for name in order
        ]
        for name, ranks in waiting:
            with ranks:
                try:
                    yield name, _take(ranks, repeats, warm_up, most_seconds)
                except RuntimeError as error:
                    yield name, error


def _take(ranks: Ranks, repeats: int, warm_up: int, most_seconds: float) -> list[Seconds]:
    for number in range(warm_up):
        _step(ranks, number)
    times: list[Seconds] = []
    while len(times) < repeats and (len(times) < LEAST_STEPS or sum(each.wall for each in times) < most_seconds):
        times.append(_step(ranks, warm_up + len(times)))
    return times


def _step(ranks: Ranks, number: int) -> Seconds:
    """Of the slowest rank."""
    ranks.send(number)
    each: list[Seconds] = ranks.receive()
    return Seconds(max(one.wall for one in each), max(one.cpu for one in each))


def _train(arm: Arm[Item], pipe: Connection, *, late: bool = False) -> None:
    """In the arm's own process: an item for every number that comes, and the time until the next one is wanted.

    ``late``: the arm builds nothing before the first number.
    """
    if late:
        pipe.poll(None)

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
