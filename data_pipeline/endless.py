"""One source as an endless sequence of rows: its epochs, each in an order of its own, one behind the other."""

# n rows that are asked for, T tokens of a row

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import UInt64, mix
from data_pipeline.manifest import ManifestError
from data_pipeline.order import EpochOrder, Rows
from data_pipeline.remote import DEFAULT_CACHE
from data_pipeline.store import MemberStore
from dualmask.config.schema import DataConfig

Ids = NDArray[np.int64]

KEY_DRAW, REPLACEMENT_DRAW = 0, 3  # kinds of draws, see crop.py
_REPLACEMENT_TRIES = 1000
UNLIMITED = 2**62  # sequences


@dataclass(frozen=True)
class Source:
    """A data folder to read from. ``weight``: its share of the sequences, relative to the other sources' weights.
    ``epochs``: how often its sequences are returned at most. ``exclude``: shards that must not be read, the same on all
    ranks."""

    folder: str | Path
    weight: float = 1.0
    epochs: int | None = None
    exclude: Collection[str] = ()
    split: str = "train"
    cache_bytes: int = DEFAULT_CACHE  # of shards of an address that stay on this machine


def sources_of(data: DataConfig) -> list[Source]:
    """The sources that a run's configuration names."""
    cache_bytes = int(data.cache_gigabytes * 1e9)
    return [Source(each.path, each.weight, each.epochs, cache_bytes=cache_bytes) for each in data.mixture]


@dataclass(frozen=True)
class Place:
    """A position in the endless order of a source: ``consumed`` sequences of ``epoch`` have been returned (over all
    ranks). ``quarantined`` names the shards that the epoch's order excludes."""

    epoch: int = 0
    consumed: int = 0
    quarantined: tuple[str, ...] = ()


class _Part(NamedTuple):
    """Positions of one epoch."""

    place: Place
    start: int
    stop: int


class EndlessSource:
    """The order excludes ``source.exclude`` from the start of the next epoch, or at once if the place is the start of
    one; within an epoch their sequences are replaced by others, so that the order stays the same."""

    def __init__(self, source: Source, seed: int) -> None:
        """Raises ManifestError if there is no data."""
        self.source, self._seed = source, seed
        self.store = MemberStore(source.folder, source.split, source.exclude, source.cache_bytes)
        self._near: tuple[int, int] | None = None  # epoch and window that are being read
        self._order = lru_cache(maxsize=2)(self._make_order)

    def begin(self, place: Place) -> Place:
        """The ``place`` with the exclusions of its epoch."""
        return place if place.consumed else replace(place, quarantined=tuple(sorted(self.source.exclude)))

    def size(self, place: Place) -> int:
        """Sequences of the epoch."""
        return self._of(place).size

    def left(self, place: Place) -> int:
        """How many sequences are left until the end of the last epoch."""
        if self.source.epochs is None:
            return UNLIMITED
        if place.epoch >= self.source.epochs:
            return 0
        later = self.source.epochs - place.epoch - 1
        return self.size(place) - place.consumed + later * self.size(self._next(place))

    def after(self, place: Place, count: int) -> Place:
        """Where ``count`` sequences behind ``place`` end."""
        *_, last = self._parts(place, 0, count)
        if last.stop == self.size(last.place):
            return self._next(last.place)
        return replace(last.place, consumed=last.stop)

    def first_rows(self, place: Place, count: int) -> Rows:
        """Where the first sequences of an epoch lie."""
        return self._of(place).rows(0, count)

    def read(self, place: Place, start: int, stop: int) -> tuple[Ids, Ids, UInt64]:
        """The sequences ``start`` … ``stop`` - 1 behind ``place``: tokens [n, T], lengths [n], keys [n]. Bad ones are
        replaced. Raises ManifestError if nothing good is left."""
        parts = [self._read(part) for part in self._parts(place, start, stop)]
        if len(parts) == 1:
            return parts[0]
        tokens, lengths, keys = zip(*parts, strict=True)
        return np.concatenate(tokens), np.concatenate(lengths), np.concatenate(keys)

    def _next(self, place: Place) -> Place:
        return self.begin(Place(place.epoch + 1))

    def _of(self, place: Place) -> EpochOrder:
        return self._order(place.epoch, place.quarantined)

    def _make_order(self, epoch: int, quarantined: tuple[str, ...]) -> EpochOrder:
        shards = self.store.shards
        excluded = [shard for file in quarantined if (shard := shards.find(file)) is not None]
        order = EpochOrder(shards, self._seed, epoch, excluded)
        if not order.size:
            raise ManifestError(
                f"{self.store.folder}: split {self.store.split!r} has no good shard left; build it again"
            )
        return order

    def _parts(self, place: Place, start: int, stop: int) -> Iterator[_Part]:
        """The positions ``start`` … ``stop`` - 1 behind ``place``, epoch by epoch; at least one part."""
        while stop > (rest := self.size(place) - place.consumed):
            if start < rest:
                yield _Part(place, place.consumed + start, place.consumed + rest)
            start, stop, place = max(start - rest, 0), stop - rest, self._next(place)
        yield _Part(place, place.consumed + start, place.consumed + stop)

    def _read(self, part: _Part) -> tuple[Ids, Ids, UInt64]:
        order = self._of(part.place)
        if (near := (part.place.epoch, order.window_at(part.start))) != self._near:
            self._near = near
            self.store.expect(order.shards(part.start))
        stored, lengths = self.store.rows(order.rows(part.start, part.stop))
        tokens = stored.astype(np.int64)
        keys = mix(self._seed, part.place.epoch, np.arange(part.start, part.stop), KEY_DRAW)
        for index in np.flatnonzero(lengths == 0):
            tokens[index], lengths[index] = self._replacement(order, keys[index])
        return tokens, lengths, keys

    def _replacement(self, order: EpochOrder, key: np.uint64) -> tuple[Ids, int]:
        """A row to replace a bad one: the first good row in a sequence of draws from the key of the bad one."""
        for attempt in range(_REPLACEMENT_TRIES):
            number = int(mix(key, REPLACEMENT_DRAW, attempt)[0] % np.uint64(order.size))
            tokens, lengths = self.store.rows(order.stored(np.array([number])))
            if lengths[0]:
                return tokens[0].astype(np.int64), int(lengths[0])
        raise ManifestError(f"{self.store.folder}: split {self.store.split!r} has no good shard left; build it again")
