"""The order of an epoch, a pure function of (seed, epoch): shards, their members and the rows of those, permuted."""

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
    """Consecutive places of the order that one member fills."""

    shard: int
    member: int
    rows: Indices


class EpochOrder:
    """``row_counts[shard][member]`` rows in the order of ``epoch``; places count from 0 to ``size`` - 1."""

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
        """The places ``start`` … ``stop`` - 1, cut where another member begins."""
        while start < stop:
            place = int(np.searchsorted(self._ends, start, side="right"))
            shard = int(self._shards[place])
            members, ends = self._members(shard)
            inside = start - (int(self._ends[place]) - int(ends[-1]))
            member_place = int(np.searchsorted(ends, inside, side="right"))
            member = int(members[member_place])
            rows = self._rows(shard, member)
            first = inside - (int(ends[member_place]) - len(rows))
            part = rows[first : first + stop - start]
            yield Run(shard, member, part)
            start += len(part)

    def _members_of(self, shard: int) -> tuple[Indices, Indices]:
        """The shard's members in order, and the end of each among the shard's rows."""
        counts = self._row_counts[shard]
        members = permutation(len(counts), *self._key, _MEMBERS, shard)
        return members, np.cumsum(counts[members])

    def _rows_of(self, shard: int, member: int) -> Indices:
        return permutation(int(self._row_counts[shard][member]), *self._key, _ROWS, shard, member)
