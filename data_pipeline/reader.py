"""From shards to batches, in an order that is a pure function of (seed, epoch); the cursor is a position in it.

Global batch s holds the same sequences whatever the number of ranks, each sequence of a source occurs once per epoch,
and a reader that starts at another reader's cursor continues with bit-identical batches: there is no other state.
"""

# B sequences a rank and step, T tokens

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from data_pipeline.crop import WHOLE, Crop, Ids, crop, unpack
from data_pipeline.endless import KEY_DRAW, EndlessSource, Place, Source
from data_pipeline.hashing import UInt64, mix
from data_pipeline.manifest import ManifestError, require_alike
from data_pipeline.mixture import Mixture, largest_remainder
from data_pipeline.order import EpochOrder
from data_pipeline.prefetch import Prefetch
from data_pipeline.remote import load_manifest
from data_pipeline.store import MemberStore
from dualmask.core.batch import Batch

log = logging.getLogger(__name__)

BATCHES_AHEAD = 4

Pending = Callable[[], Batch]  # waits until the batch is there
Prepare = Callable[[int, Batch], Batch | Pending]

_TEXT_DRAW, _SOURCE_DRAW = 4, 5  # kinds of draws, see crop.py


@dataclass(frozen=True)
class Cursor:
    """A position in the order of the data: ``position`` sequences have been returned, over all ranks and sources, and
    the sources are at their places."""

    seed: int = 0
    position: int = 0
    sources: tuple[Place, ...] = (Place(),)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """A cursor of an earlier version, whose epochs had another order, becomes the start of the next epoch."""
        if "sources" not in values:
            log.warning("the checkpoint's order of the data is that of an earlier version: the next epoch is begun")
            return cls(seed=values["seed"], sources=(Place(values["epoch"] + (values["consumed"] > 0)),))
        places = [Place(**{**place, "quarantined": tuple(place["quarantined"])}) for place in values["sources"]]
        return cls(**{**values, "sources": tuple(places)})


@dataclass(frozen=True)
class Share:
    """What a data-parallel rank gets of the order that ``seed`` draws: ``batch_size`` of each global batch."""

    batch_size: int
    rank: int = 0
    world: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world

    @property
    def step(self) -> int:
        """Sequences of a global batch."""
        return self.batch_size * self.world

    @property
    def part(self) -> slice:
        """The rank's places in it."""
        return slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)


class ShardReader:
    """Iterates over the training batches of one data-parallel rank: ``Batch`` of fixed shape [B, T], int64, on the CPU.
    Where rows are packed (``packing: documents`` of the data build), the B rows give more texts than that, [≥ B, T].

    Endless: where a source ends, its next epoch begins in the same batch. Where all sources have a limit of epochs, it
    ends when less than a global batch is left.
    ``cursor`` is the position after the last returned batch, ``quarantined`` the number of bad members met so far.
    """

    def __init__(
        self,
        sources: str | Path | Source | Sequence[Source],
        share: Share,
        crop: Crop = WHOLE,
        *,
        cursor: Cursor | None = None,
        prefetch: int = BATCHES_AHEAD,
        prepare: Prepare | None = None,
    ) -> None:
        """prefetch: batches that are read ahead. ``prepare``: called in the prefetch thread with each batch and its
        number, which counts from the cursor.

        Raises ManifestError if there is no data, no good shard, if the sources do not fit each other, or if a global
        batch would hold a sequence twice."""
        if isinstance(sources, str | Path):
            sources = Source(sources)
        self._sources = open_sources([sources] if isinstance(sources, Source) else sources, share.seed)
        self._share, self._crop, self._prefetch = share, crop, prefetch
        self._mixture = Mixture([source.source.weight for source in self._sources], share.seed)
        self._prepare, self._handed_out = prepare, 0
        self.cursor = self._begin(cursor or Cursor(share.seed, sources=(Place(),) * len(self._sources)))
        self._batches: Prefetch[tuple[Batch | Pending, Cursor]] | None = None

    @property
    def quarantined(self) -> int:
        return sum(len(source.store.bad_members) for source in self._sources)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = Prefetch(self._produce(self.cursor), self._prefetch)
        batch, self.cursor = next(self._batches)
        self._handed_out += 1
        return batch if isinstance(batch, Batch) else batch()

    def close(self) -> None:
        """Ends the prefetch thread; a later iteration continues at ``cursor``."""
        for source in self._sources:
            source.store.close()  # else the thread might wait for a store that does not answer
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _begin(self, cursor: Cursor) -> Cursor:
        """The ``cursor`` with the exclusions of epochs that begin there; raises here rather than in the first step."""
        if cursor.seed != self._share.seed:
            raise ValueError(f"seed={self._share.seed} is not the seed {cursor.seed} that it was begun with")
        if len(cursor.sources) != len(self._sources):
            raise ValueError(
                f"{len(self._sources)} data sources are not the {len(cursor.sources)} that it was begun with"
            )
        places = [source.begin(place) for source, place in zip(self._sources, cursor.sources, strict=True)]
        for source, place, needed in zip(self._sources, places, self._mixture.most(self._share.step), strict=True):
            if (size := source.size(place)) < needed:
                raise ManifestError(
                    f"{source.store.folder}: split {source.store.split!r} has {size} sequences, a global batch needs "
                    f"{needed}: lower batch.sequences or build more data"
                )
        return replace(cursor, sources=tuple(places))

    def _produce(self, cursor: Cursor) -> Iterator[tuple[Batch | Pending, Cursor]]:
        number = itertools.count(self._handed_out)
        while (chosen := self._chosen(cursor)) is not None:
            batch = self._batch(cursor, chosen)
            cursor = self._after(cursor, chosen)
            yield batch if self._prepare is None else self._prepare(next(number), batch), cursor

    def _chosen(self, cursor: Cursor) -> Ids | None:
        """The source of each sequence of the global batch at ``cursor``; None at the end of the data."""
        left = [source.left(place) for source, place in zip(self._sources, cursor.sources, strict=True)]
        return self._mixture.draw(cursor.position, cursor.position + self._share.step, left)

    def _after(self, cursor: Cursor, chosen: Ids) -> Cursor:
        counts = np.bincount(chosen, minlength=len(self._sources)).tolist()
        places = [
            source.after(place, count)
            for source, place, count in zip(self._sources, cursor.sources, counts, strict=True)
        ]
        return Cursor(cursor.seed, cursor.position + len(chosen), tuple(places))

    def _batch(self, cursor: Cursor, chosen: Ids) -> Batch:
        """The rank's part of the global batch at ``cursor``."""
        mine = chosen[self._share.part]
        earlier = np.bincount(chosen[: self._share.part.start], minlength=len(self._sources))
        tokens = np.empty((len(mine), self._sources[0].store.max_length), np.int64)
        lengths, keys = np.empty(len(mine), np.int64), np.empty(len(mine), np.uint64)
        for number in np.unique(mine).tolist():
            places, start = np.flatnonzero(mine == number), int(earlier[number])
            rows = self._sources[number].read(cursor.sources[number], start, start + len(places))
            tokens[places], lengths[places], keys[places] = rows
        return self._finished(tokens, lengths, keys)

    def _finished(self, tokens: Ids, lengths: Ids, keys: UInt64) -> Batch:
        number = None
        if self._sources[0].store.packed:
            tokens, lengths, number, place = unpack(tokens, lengths)
            keys = mix(np.repeat(keys, number), _TEXT_DRAW, place)
        crop(tokens, lengths, keys, self._crop)
        return replace(_to_batch(tokens, lengths, keys), texts_in_row=number)


def open_sources(sources: Sequence[Source], seed: int) -> list[EndlessSource]:
    """Each in an order of its own. Raises ManifestError where rows of one are not as those of the others."""
    seeds = [seed, *(int(mix(seed, _SOURCE_DRAW, number)[0]) for number in range(1, len(sources)))]
    opened = list(map(EndlessSource, sources, seeds))
    require_alike({str(source.store.folder): source.store.manifest for source in opened})
    return opened


def evaluation_batches(
    folder: str | Path, split: str, *, batch_size: int, limit: int | None = None, exclude: Iterable[str] = ()
) -> Iterator[Batch]:
    """Every good row of ``split`` once, or the first ``limit``, in file order; the last batch may be smaller.

    Raises ManifestError.
    """
    store = MemberStore(folder, split, tuple(exclude))
    rows = itertools.islice((row for block in store.blocks() for row in zip(*block, strict=True)), limit)
    start = 0
    while part := list(itertools.islice(rows, batch_size)):
        tokens = np.stack([tokens for tokens, _ in part]).astype(np.int64)
        lengths = np.array([length for _, length in part], np.int64)
        if store.packed:
            tokens, lengths, *_ = unpack(tokens, lengths)
        yield _to_batch(tokens, lengths, mix(0, 0, np.arange(start, start + len(tokens)), KEY_DRAW))
        start += len(tokens)


def spread_batch(folder: str | Path, split: str, limit: int) -> Batch:
    """At most ``limit`` good rows of ``split``, evenly spread over the whole of it: always the same ones.

    Reads only the members that hold them. Raises ManifestError if there is none.
    """
    store = MemberStore(folder, split)
    order = EpochOrder(store.shards, seed=0, epoch=0)
    number = min(limit, order.size)
    wanted = np.arange(number) * order.size // max(number, 1)
    tokens, lengths = store.rows(order.stored(wanted))
    kept = np.flatnonzero(lengths)
    if not len(kept):
        raise ManifestError(f"{folder}: split {split!r} has no good sequence: build it again")
    return _to_batch(tokens[kept].astype(np.int64), lengths[kept], mix(0, 0, wanted[kept], KEY_DRAW))


def mixed_batch(sources: Sequence[Source], split: str, limit: int) -> Batch:
    """At most ``limit`` good rows of ``split`` of the sources that have one, as many of each as its weight says.

    Raises ManifestError if there is none."""
    filled = [source for source in sources if load_manifest(source.folder).has(split)] or list(sources)
    weights = np.array([source.weight for source in filled])
    counts = largest_remainder(weights / weights.sum(), limit)
    parts = [spread_batch(source.folder, split, count) for source, count in zip(filled, counts, strict=True) if count]
    planes = (torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "length", "key"))
    return Batch(*planes, host_length=np.concatenate([part.host_length for part in parts]))


def _to_batch(tokens: Ids, lengths: Ids, keys: UInt64) -> Batch:
    positive = (keys >> np.uint64(1)).astype(np.int64)
    planes = map(torch.from_numpy, (tokens, lengths, positive))
    return Batch(*planes, host_length=lengths)
