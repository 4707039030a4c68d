"""The order of an epoch, a pure function of (seed, epoch): permuted shards, their permuted members, and all rows of a
window of these permuted together.

A window is some tens of thousands of rows: those of a few shards, or a part of a large one, which are others in each
epoch. So rows that met in a batch hardly ever meet again, while an epoch reads one shard after the other. Only the
windows in use are ever in memory.
"""

# S shards, n rows

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import permutation

Indices = NDArray[np.int64]

WINDOW = 2**15  # rows; all windows of an epoch are equally large, up to twice that

_SHARDS, _MEMBERS, _ROWS = range(3)


class RowCounts(Protocol):
    """How many rows there are: what the order needs to know of the data."""

    @property
    def rows(self) -> Indices:
        """Of each shard, [S]."""
        ...

    def member_rows(self, shard: int) -> Indices:
        """Of each member of a shard."""
        ...


class Rows(NamedTuple):
    """Where rows lie: their shards, their members in these, and their numbers in the members; three arrays [n]."""

    shards: Indices
    members: Indices
    rows: Indices


class EpochOrder:
    """The order of the rows in ``epoch``, but for ``excluded`` shards; its positions are 0 … ``size`` - 1."""

    def __init__(
        self, counts: RowCounts, seed: int, epoch: int, excluded: Sequence[int] = (), window: int | None = None
    ):
        self._counts, self._key = counts, (seed, epoch)
        rows = counts.rows.copy()
        rows[list(excluded)] = 0
        self._stored_ends = np.cumsum(rows)
        self._shards = permutation(len(rows), *self._key, _SHARDS)
        self._sizes = rows[self._shards]
        self._ends = np.cumsum(self._sizes)
        self.size = int(rows.sum())
        windows = max(self.size // (window or WINDOW), 1)
        self._windows = np.arange(windows + 1) * self.size // windows  # where they begin, and the end
        self._window = lru_cache(maxsize=2)(self._make_window)

    def rows(self, start: int, stop: int) -> Rows:
        """The rows at the positions ``start`` … ``stop`` - 1."""
        parts = [Rows(*np.zeros((3, 0), np.int64))]
        while start < stop:
            number = self.window_at(start)
            first, end = self._windows[number : number + 2].tolist()
            here = slice(start - first, min(stop, end) - first)
            parts.append(Rows(*(column[here] for column in self._window(number))))
            start = end
        return parts[-1] if len(parts) == 2 else _joined(parts)

    def shards(self, start: int) -> list[int]:
        """The shards that are read from position ``start`` to the end of the window behind its own, in order."""
        number = self.window_at(start)
        stop = int(self._windows[min(number + 2, len(self._windows) - 1)])
        first, last = np.searchsorted(self._ends, [self._windows[number], stop - 1], side="right")
        return [
            int(shard) for shard, size in zip(self._shards[first : last + 1], self._sizes[first:], strict=False) if size
        ]

    def stored(self, numbers: Indices) -> Rows:
        """The rows of these ``numbers`` [n] in the order in which they are stored, of those that the order holds."""
        shards = np.searchsorted(self._stored_ends, numbers, side="right")
        where = Rows(shards, np.zeros_like(numbers), np.zeros_like(numbers))
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            counts = self._counts.member_rows(shard)
            ends = np.cumsum(counts)
            inside = numbers[here] - int(self._stored_ends[shard]) + int(ends[-1])
            where.members[here] = members = np.searchsorted(ends, inside, side="right")
            where.rows[here] = inside - (ends - counts)[members]
        return where

    def window_at(self, position: int) -> int:
        """The number of the window that holds ``position``."""
        return int(np.searchsorted(self._windows, position, side="right")) - 1

    def _make_window(self, number: int) -> Rows:
        start, stop = self._windows[number : number + 2].tolist()
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        filled = first + np.flatnonzero(self._sizes[first : last + 1])
        stored = _joined([self._shard(index, start, stop) for index in filled.tolist()])
        order = permutation(stop - start, *self._key, _ROWS, number)
        return Rows(*(column[order] for column in stored))

    def _shard(self, index: int, start: int, stop: int) -> Rows:
        """Those rows of the ``index``-th shard whose place is between ``start`` and ``stop``, member by member."""
        shard = int(self._shards[index])
        counts = self._counts.member_rows(shard)
        members = permutation(len(counts), *self._key, _MEMBERS, shard)
        ends = np.cumsum(counts[members])
        offset = int(self._ends[index]) - int(ends[-1])
        inside = np.arange(max(start - offset, 0), min(stop - offset, int(ends[-1])))
        at = np.searchsorted(ends, inside, side="right")
        return Rows(np.full(len(inside), shard), members[at], inside - (ends - counts[members])[at])


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))
