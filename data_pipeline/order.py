"""The order of an epoch, a pure function of (seed, epoch): permuted shards, their members, and the members' rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import permutation

Indices = NDArray[np.int64]

_SHARDS, _MEMBERS, _ROWS = range(3)


@dataclass(frozen=True)
class Run:
    """Consecutive positions of the order whose rows lie in one member."""

    shard: int
    member: int
    rows: Indices


class EpochOrder:
    """The order of ``row_counts[shard][member]`` rows in ``epoch``; its positions are 0 … ``size`` - 1."""

    def __init__(self, row_counts: Sequence[Sequence[int]], seed: int, epoch: int) -> None:
        self._key = (seed, epoch)
        self._row_counts = [np.asarray(counts, np.int64) for counts in row_counts]
        self._shards = permutation(len(row_counts), *self._key, _SHARDS)
        self._ends = np.cumsum([self._row_counts[shard].sum() for shard in self._shards])
        self._members = lru_cache(maxsize=4)(self._members_of)
        self._rows = lru_cache(maxsize=8)(self._rows_of)

    @property
    def size(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The positions ``start`` … ``stop`` - 1, split where another member begins."""
        while start < stop:
            shard_index = int(np.searchsorted(self._ends, start, side="right"))
            shard = int(self._shards[shard_index])
            members, ends = self._members(shard)
            inside = start - (int(self._ends[shard_index]) - int(ends[-1]))
            member_index = int(np.searchsorted(ends, inside, side="right"))
            member = int(members[member_index])
            rows = self._rows(shard, member)
            first = inside - (int(ends[member_index]) - len(rows))
            part = rows[first : first + stop - start]
            yield Run(shard, member, part)
            start += len(part)

    def _members_of(self, shard: int) -> tuple[Indices, Indices]:
        """The shard's members in order, and the cumulative number of rows at the end of each."""
        counts = self._row_counts[shard]
        members = permutation(len(counts), *self._key, _MEMBERS, shard)
        return members, np.cumsum(counts[members])

    def _rows_of(self, shard: int, member: int) -> Indices:
        return permutation(int(self._row_counts[shard][member]), *self._key, _ROWS, shard, member)
