"""From shards to batches, in an order that is a pure function of (seed, epoch); the cursor is a position in it.

Global batch s holds the same sequences whatever the number of ranks, each sequence occurs once per epoch, and a reader
that starts at another reader's cursor continues with bit-identical batches: there is no other state.
"""

# B sequences a rank and step, T tokens

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.hashing import UInt64, mix, unit
from data_pipeline.manifest import ManifestError
from data_pipeline.order import EpochOrder
from data_pipeline.prefetch import Prefetch
from data_pipeline.store import MemberStore
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID

Ids = NDArray[np.int64]

SHORTEST_CROP = 8  # tokens, BOS and EOS included
_KEY, _CROP, _CROP_LENGTH, _REPLACEMENT, _TEXT = range(5)
_REPLACEMENT_TRIES = 1000


@dataclass(frozen=True)
class Borders:
    """Tokens behind which a cropped text may begin or end."""

    line_ends: NDArray[np.bool_]  # [V] ends with a line break
    sentence_ends: NDArray[np.bool_]  # [V] ends a sentence


@dataclass(frozen=True)
class Cursor:
    """A position in the order of the data: ``consumed`` sequences of ``epoch`` (over all ranks) have been returned.

    ``quarantined`` names the shards that the epoch's order excludes; shard, member and row follow from the rest.
    """

    epoch: int = 0
    consumed: int = 0
    seed: int = 0
    quarantined: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**{**values, "quarantined": tuple(values["quarantined"])})


class ShardReader:
    """Iterates over the training batches of one data-parallel rank: ``Batch`` of fixed shape [B, T], int64, on the CPU.
    Where rows are packed (``packing: documents`` of the data build), the B rows give more texts than that, [≥ B, T].

    Endless, or until the end of epoch ``epochs`` - 1; an epoch's last, incomplete global batch is dropped.
    ``exclude`` names shards that must not be read (the same on all ranks). The order excludes them from the start of
    the next epoch, or at once if the reader starts an epoch; within an epoch their sequences are replaced by others,
    so that the order stays the same.
    ``cursor`` is the position after the last returned batch, ``quarantined`` the number of bad members met so far.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        batch_size: int,
        data_rank: int = 0,
        data_world: int = 1,
        seed: int = 0,
        cursor: Cursor | None = None,
        crop_share: float = 0.0,
        borders: Borders | None = None,
        epochs: int | None = None,
        exclude: Collection[str] = (),
        prefetch: int = 4,
    ) -> None:
        """Raises ManifestError if there is no data, no good shard, or less than one global batch per epoch."""
        assert 0 <= data_rank < data_world
        self._store = MemberStore(folder, split, exclude)
        self._batch_size, self._rank, self._world = batch_size, data_rank, data_world
        self._borders = borders
        self._crop_share, self._epochs, self._prefetch = crop_share, epochs, prefetch
        if cursor is not None and cursor.seed != seed:
            raise ValueError(f"seed={seed} is not the seed {cursor.seed} that the data order was begun with")
        self.cursor = cursor or Cursor(seed=seed, quarantined=tuple(sorted(exclude)))
        if not cursor or not cursor.consumed:
            self.cursor = replace(self.cursor, quarantined=tuple(sorted(exclude)))
        self._order(self.cursor)  # raises here rather than in the first step
        self._source: Prefetch[tuple[Batch, Cursor]] | None = None

    @property
    def quarantined(self) -> int:
        return len(self._store.bad_members)

    @property
    def batches_per_epoch(self) -> int:
        return self._order(self.cursor).size // (self._batch_size * self._world)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._source is None:
            self._source = Prefetch(self._produce(self.cursor), self._prefetch)
        batch, self.cursor = next(self._source)
        return batch

    def close(self) -> None:
        """Ends the prefetch thread; a later iteration continues at ``cursor``."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _produce(self, cursor: Cursor) -> Iterator[tuple[Batch, Cursor]]:
        step = self._batch_size * self._world
        while self._epochs is None or cursor.epoch < self._epochs:
            order = self._order(cursor)
            while cursor.consumed + step <= order.size:
                start = cursor.consumed + self._rank * self._batch_size
                cursor = replace(cursor, consumed=cursor.consumed + step)
                yield self._batch(order, cursor, start), cursor
            excluded = tuple(sorted(self._store.excluded))
            cursor = replace(cursor, epoch=cursor.epoch + 1, consumed=0, quarantined=excluded)

    def _order(self, cursor: Cursor) -> EpochOrder:
        excluded = set(cursor.quarantined)
        counts = [
            [] if shard.file in excluded else [member.rows for member in shard.members] for shard in self._store.shards
        ]
        order = EpochOrder(counts, cursor.seed, cursor.epoch)
        if order.size < self._batch_size * self._world:
            raise ManifestError(
                f"{self._store.folder}: split {self._store.split!r} has {order.size} sequences, a global batch needs "
                f"{self._batch_size * self._world}: lower batch.sequences or build more data"
            )
        return order

    def _batch(self, order: EpochOrder, cursor: Cursor, start: int) -> Batch:
        positions = np.arange(start, start + self._batch_size)
        keys = mix(cursor.seed, cursor.epoch, positions, _KEY)
        tokens, lengths = self._rows(order, start)
        for index in np.flatnonzero(lengths == 0):
            tokens[index], lengths[index] = self._replacement(order, keys[index])
        number = None
        if self._store.packed:
            tokens, lengths, number, place = unpack(tokens, lengths)
            keys = mix(np.repeat(keys, number), _TEXT, place)
        crop(tokens, lengths, keys, self._crop_share, self._borders)
        batch = _to_batch(tokens, lengths, keys)
        return replace(batch, texts_in_row=number)

    def _rows(self, order: EpochOrder, start: int) -> tuple[Ids, Ids]:
        """Tokens [B, T] and lengths [B] at the B positions from ``start``; length 0 where the member is bad."""
        tokens = np.full((self._batch_size, self._store.max_length), PAD_ID, np.int64)
        lengths = np.zeros(self._batch_size, np.int64)
        done = 0
        for run in order.runs(start, start + self._batch_size):
            part = slice(done, done + len(run.rows))
            if (block := self._store.read(run.shard, run.member)) is not None:
                tokens[part], lengths[part] = block[0][run.rows], block[1][run.rows]
            done = part.stop
        return tokens, lengths

    def _replacement(self, order: EpochOrder, key: np.uint64) -> tuple[Ids, int]:
        """A row to replace a bad one: the first good row in a sequence of draws from the key of the bad one."""
        for attempt in range(_REPLACEMENT_TRIES):
            position = int(mix(key, _REPLACEMENT, attempt)[0] % np.uint64(order.size))
            (run,) = order.runs(position, position + 1)
            if (block := self._store.read(run.shard, run.member)) is not None:
                return block[0][run.rows[0]].astype(np.int64), int(block[1][run.rows[0]])
        raise ManifestError(f"{self._store.folder}: split {self._store.split!r} has no good shard left; build it again")


def unpack(rows: Ids, lengths: Ids) -> tuple[Ids, Ids, Ids, Ids]:
    """The texts of packed rows [R, T] of ``lengths`` [R]: tokens [B, T], lengths [B], how many a row holds [R], and the
    number of each text in its row [B]."""
    row, start = np.nonzero(rows == BOS_ID)
    number = np.bincount(row, minlength=len(rows))
    last = np.append(row[1:] != row[:-1], True)  # of its row
    end = np.where(last, lengths[row], np.append(start[1:], 0))
    position = np.arange(rows.shape[1])
    source = np.minimum(start[:, None] + position, rows.shape[1] - 1)
    tokens = np.where(position < (end - start)[:, None], rows[row[:, None], source], PAD_ID)
    return tokens, end - start, number, np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)


def crop(tokens: Ids, lengths: Ids, keys: UInt64, share: float, borders: Borders | None = None) -> None:
    """Crops a ``share`` of the rows [B, T] in place to a random length, ended by EOS; a function of ``keys`` [B].

    With ``borders`` a cropped text begins behind the first end of a line, if enough is left there, and a cut moves left
    to the nearest end of a sentence, if there is one. So cropped texts are complete, as people's texts are, and a model
    can tell one that has ended from one that breaks off.
    """
    chosen = np.flatnonzero((unit(mix(keys, _CROP)) < share) & (lengths > SHORTEST_CROP))
    if borders is not None:
        for row in chosen:
            lengths[row] = _from_first_line(tokens[row], lengths[row], borders.line_ends)
    room = np.maximum(lengths - SHORTEST_CROP, 0)
    cut = SHORTEST_CROP + (unit(mix(keys, _CROP_LENGTH)) * room).astype(np.int64)
    for row in chosen[room[chosen] > 0]:
        if borders is not None:
            ends = np.flatnonzero(borders.sentence_ends[tokens[row, SHORTEST_CROP - 2 : cut[row] - 1]])
            cut[row] = SHORTEST_CROP + ends[-1] if len(ends) else cut[row]
        tokens[row, cut[row] - 1] = EOS_ID
        tokens[row, cut[row] :] = PAD_ID
        lengths[row] = cut[row]


def _from_first_line(row: Ids, length: int, line_ends: NDArray[np.bool_]) -> int:
    """Moves what stands behind the first line break of row [T] behind BOS; returns the new length."""
    breaks = np.flatnonzero(line_ends[row[1 : length - SHORTEST_CROP + 1]])
    gone = int(breaks[0]) + 1 if len(breaks) else 0
    row[1 : length - gone] = row[1 + gone : length].copy()
    row[length - gone : length] = PAD_ID
    return length - gone


def evaluation_batches(
    folder: str | Path, split: str, *, batch_size: int, limit: int | None = None, exclude: Iterable[str] = ()
) -> Iterator[Batch]:
    """Every good row of ``split`` once, or the first ``limit``, in file order; the last batch may be smaller.

    Raises ManifestError.
    """
    store = MemberStore(folder, split, tuple(exclude))
    rows = itertools.islice(_good_rows(store), limit)
    start = 0
    while part := list(itertools.islice(rows, batch_size)):
        tokens = np.stack([tokens for tokens, _ in part]).astype(np.int64)
        lengths = np.array([length for _, length in part], np.int64)
        if store.packed:
            tokens, lengths, *_ = unpack(tokens, lengths)
        yield _to_batch(tokens, lengths, mix(0, 0, np.arange(start, start + len(tokens)), _KEY))
        start += len(tokens)


def spread_batch(folder: str | Path, split: str, limit: int) -> Batch:
    """At most ``limit`` good rows of ``split``, evenly spread over the whole of it: always the same ones.

    Reads only the members that hold them. Raises ManifestError if there is none.
    """
    store = MemberStore(folder, split)
    number = min(limit, store.rows)
    wanted = np.arange(number) * store.rows // max(number, 1)
    places = [(shard, member) for shard, info in enumerate(store.shards) for member in range(len(info.members))]
    ends = np.cumsum([store.shards[shard].members[member].rows for shard, member in places])
    tokens, lengths, kept = [], [], []
    for position in wanted.tolist():
        index = int(np.searchsorted(ends, position, side="right"))
        if (block := store.read(*places[index])) is not None:
            row = position - int(ends[index])  # from the end of the member
            tokens.append(block[0][row].astype(np.int64))
            lengths.append(int(block[1][row]))
            kept.append(position)
    if not kept:
        raise ManifestError(f"{folder}: split {split!r} has no good sequence: build it again")
    return _to_batch(np.stack(tokens), np.array(lengths, np.int64), mix(0, 0, np.array(kept), _KEY))


def _good_rows(store: MemberStore) -> Iterator[tuple[NDArray[np.unsignedinteger], int]]:
    for shard, info in enumerate(store.shards):
        for member in range(len(info.members)):
            if (block := store.read(shard, member)) is not None:
                yield from zip(*block, strict=True)


def _to_batch(tokens: Ids, lengths: Ids, keys: UInt64) -> Batch:
    positive = (keys >> np.uint64(1)).astype(np.int64)
    planes = map(torch.from_numpy, (tokens, lengths, positive))
    return Batch(*planes, host_length=lengths)
