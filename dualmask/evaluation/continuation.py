"""Continuing held-out texts: what is asked of every method, what it wrote and what that took, and rows of figures.

Two kinds of intervals: figures that each text has by itself are resampled over texts (``Task.row``); figures that
compare texts with each other, such as distinct-2, over groups of GROUP texts (``over_groups``, ``group_row``).
"""

# n prompts, K tokens behind each, G groups of texts that are compared with each other

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualmask.evaluation import statistics
from dualmask.evaluation.diversity import GROUP
from dualmask.evaluation.statistics import Row, Statistic
from dualmask.evaluation.writers import Continuation, Texts, Writer, counted

TEXTS_AT_ONCE = 64
SPEED_BASELINE = "autoregressive"  # the method that ``speedup_vs_ar`` compares others with


@dataclass(frozen=True)
class Task:
    """Prompts [n], the ids that really follow each, equally many, and of how many texts they are: first one prompt of
    each text, then the next of each."""

    prompts: Texts
    gold: Texts
    texts: int

    @property
    def width(self) -> int:
        """K: tokens to write behind each prompt."""
        return len(self.gold[0])

    def row(
        self, metric: str, statistic: Statistic, columns: Sequence[np.ndarray], method: str, **dimensions: object
    ) -> Row:
        """From columns of [n] each; the interval is over texts, as prompts of one text are alike."""
        of_texts = np.stack(columns, 1).astype(float).reshape(-1, self.texts, len(columns)).sum(0)
        row = statistics.row(metric, statistic, of_texts, method=method, **dimensions)
        return row | {"n": len(self.gold)}


def whole_groups(sequences: Sequence[Sequence[int]], limit: int, needed: str) -> list[Sequence[int]]:
    """At most ``limit`` sequences, spread evenly, and a whole number of groups. Raises ValueError, which says what is
    ``needed``, where there are less than two groups."""
    number = min(limit, len(sequences)) // GROUP * GROUP
    if number < 2 * GROUP:
        raise ValueError(f"{needed}, there are {len(sequences)}")
    return [sequences[index * len(sequences) // number] for index in range(number)]


@dataclass(frozen=True)
class Sample:
    """What one writer wrote, and what it took."""

    written: list[Continuation]
    seconds: float
    passes: float  # a text, of the network that writes
    blocks: float  # a text, of all networks

    @property
    def texts(self) -> list[list[int]]:
        return [one.ids for one in self.written]

    @property
    def steps(self) -> np.ndarray:
        """[n] where the writer says how many it took for each text."""
        return np.array([one.steps for one in self.written])

    @property
    def tokens(self) -> int:
        return sum(map(len, self.texts))


def write(
    writer: Writer,
    prompts: Texts,
    tokens: int,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
    at_once: int = TEXTS_AT_ONCE,
) -> list[Continuation]:
    """``tokens`` behind each prompt, ``at_once`` prompts in a batch. The n-th one is drawn with ``seed`` + n; without a
    seed all are drawn alike."""
    seeds = [0] * len(prompts) if seed is None else range(seed, seed + len(prompts))
    return [
        continuation
        for part in parts(len(prompts), at_once)
        for continuation in writer.write(prompts[part], tokens, temperature, seeds[part])
    ]


def draw(writer: Writer, task: Task, **options: Any) -> Sample:
    """Everything that a task asks of a writer. options: of ``write``."""
    began = time.perf_counter()
    with counted(writer.model, writer.network, writer.blocks) as passes:
        written = write(writer, task.prompts, task.width, **options)
    seconds = time.perf_counter() - began
    return Sample(written, seconds, passes.writing / len(written), passes.blocks / len(written))


def take_turns(
    jobs: Mapping[str, Callable[[], object]], repeats: int, progress: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each job in each repeat. They take turns, so that what slows the machine down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - began)
        progress()
    return seconds


def over_groups(texts: Sequence[Any], figure: Callable[[Sequence[Any]], tuple[float, float]]) -> np.ndarray:
    """[G, 2] of which the ratio is taken: ``figure`` of each group."""
    return np.array([figure(texts[part]) for part in parts(len(texts), GROUP)], float)


def group_row(metric: str, statistic: Statistic, columns: np.ndarray, **dimensions: Any) -> Row:
    """From columns [G, c]. n is the number of texts; the interval is over groups of them."""
    return statistics.row(metric, statistic, columns, **dimensions) | {"n": len(columns) * GROUP}


def parts(number: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, number, at_once))
