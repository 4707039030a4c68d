"""Shards → batches, in an order that is a pure function of (seed, epoch) and an exact place in it, the cursor.

Global batch s holds the same sequences however many ranks share it, each sequence comes once an epoch, and a reader
that starts at another reader's cursor goes on with bit-identical batches: there is no other state.
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
from dualmask.core.tokenizer import EOS_ID, PAD_ID

Ids = NDArray[np.int64]

SHORTEST_CROP = 8  # tokens, BOS and EOS included
_KEY, _CROP, _CROP_LENGTH, _REPLACEMENT = range(4)
_REPLACEMENT_TRIES = 1000


@dataclass(frozen=True)
class Cursor:
    """A place in the endless order: ``consumed`` sequences of ``epoch`` (over all ranks) have been handed out.

    ``quarantined`` names the shards that the epoch's order leaves out; shard, member and row follow from the rest.
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
    """Iterates the training batches of one data-parallel rank: ``Batch`` of fixed shape [B, T], int64, on the CPU.

    Runs for ever, or to the end of epoch ``epochs`` - 1; an epoch's last, incomplete global batch is left out.
    ``exclude`` names shards not to read (all ranks must pass the same): out of the order from the next epoch's start,
    and at once where the reader starts an epoch; in mid-epoch their sequences are replaced so that the order stands.
    ``cursor`` is the place after the last batch handed out, ``quarantined`` counts the members found bad while reading.
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
        sentence_ends: NDArray[np.bool_] | None = None,
        epochs: int | None = None,
        exclude: Collection[str] = (),
        prefetch: int = 4,
    ) -> None:
        """Raises ManifestError where there is no data, no good shard, or less than one global batch an epoch."""
        assert 0 <= data_rank < data_world
        self._store = MemberStore(folder, split, exclude)
        self._batch_size, self._rank, self._world = batch_size, data_rank, data_world
        self._sentence_ends = sentence_ends
        self._crop_share, self._epochs, self._prefetch = crop_share, epochs, prefetch
        if cursor is not None and cursor.seed != seed:
            raise ValueError(f"seed={seed} is not the seed {cursor.seed} that the data order was begun with")
        self.cursor = cursor or Cursor(seed=seed, quarantined=tuple(sorted(exclude)))
        if not cursor or not cursor.consumed:
            self.cursor = replace(self.cursor, quarantined=tuple(sorted(exclude)))
        self._order(self.cursor)  # fails here rather than in the first step
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
        """Ends the prefetch thread; iterating again goes on behind ``cursor``."""
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
        left_out = set(cursor.quarantined)
        counts = [
            [] if shard.file in left_out else [member.rows for member in shard.members] for shard in self._store.shards
        ]
        order = EpochOrder(counts, cursor.seed, cursor.epoch)
        if order.size < self._batch_size * self._world:
            raise ManifestError(
                f"{self._store.folder}: split {self._store.split!r} has {order.size} sequences, a global batch needs "
                f"{self._batch_size * self._world}: lower batch.sequences or build more data"
            )
        return order

    def _batch(self, order: EpochOrder, cursor: Cursor, start: int) -> Batch:
        places = np.arange(start, start + self._batch_size)
        keys = mix(cursor.seed, cursor.epoch, places, _KEY)
        tokens, lengths = self._rows(order, start)
        for index in np.flatnonzero(lengths == 0):
            tokens[index], lengths[index] = self._replacement(order, keys[index])
        crop(tokens, lengths, keys, self._crop_share, self._sentence_ends)
        return _to_batch(tokens, lengths, keys)

    def _rows(self, order: EpochOrder, start: int) -> tuple[Ids, Ids]:
        """Tokens [B, T] and lengths [B] of the places from ``start`` on; length 0 where the member is bad."""
        tokens = np.full((self._batch_size, self._store.max_length), PAD_ID, np.int64)
        lengths = np.zeros(self._batch_size, np.int64)
        done = 0
        for run in order.runs(start, start + self._batch_size):
            here = slice(done, done + len(run.rows))
            if (block := self._store.read(run.shard, run.member)) is not None:
                tokens[here], lengths[here] = block[0][run.rows], block[1][run.rows]
            done = here.stop
        return tokens, lengths

    def _replacement(self, order: EpochOrder, key: np.uint64) -> tuple[Ids, int]:
        """Another row in the place of a bad one: the first good one in a sequence of draws from the bad one's key."""
        for attempt in range(_REPLACEMENT_TRIES):
            place = int(mix(key, _REPLACEMENT, attempt)[0] % np.uint64(order.size))
            (run,) = order.runs(place, place + 1)
            if (block := self._store.read(run.shard, run.member)) is not None:
                return block[0][run.rows[0]].astype(np.int64), int(block[1][run.rows[0]])
        raise ManifestError(f"{self._store.folder}: split {self._store.split!r} has no good shard left; build it again")


def crop(tokens: Ids, lengths: Ids, keys: UInt64, share: float, sentence_ends: NDArray[np.bool_] | None = None) -> None:
    """Cuts that ``share`` of the rows [B, T] to a random length in place, ended by EOS; decided by ``keys`` [B].

    ``sentence_ends`` [V]: tokens behind which a sentence is over. A cut moves left to the next such place, if there is
    one, so that short texts are whole ones and a model can tell a text that has ended from one that breaks off.
    """
    room = np.maximum(lengths - SHORTEST_CROP, 0)
    cut = SHORTEST_CROP + (unit(mix(keys, _CROP_LENGTH)) * room).astype(np.int64)
    chosen = np.flatnonzero((unit(mix(keys, _CROP)) < share) & (room > 0))
    for row in chosen:
        if sentence_ends is not None:
            ends = np.flatnonzero(sentence_ends[tokens[row, SHORTEST_CROP - 2 : cut[row] - 1]])
            cut[row] = SHORTEST_CROP + ends[-1] if len(ends) else cut[row]
        tokens[row, cut[row] - 1] = EOS_ID
        tokens[row, cut[row] :] = PAD_ID
    lengths[chosen] = cut[chosen]


def evaluation_batches(
    folder: str | Path, split: str, *, batch_size: int, limit: int | None = None, exclude: Iterable[str] = ()
) -> Iterator[Batch]:
    """Every good row of ``split`` once, or the first ``limit``, in the order of the files; the last batch may be short.

    Raises ManifestError.
    """
    store = MemberStore(folder, split, tuple(exclude))
    rows = itertools.islice(_good_rows(store), limit)
    start = 0
    while part := list(itertools.islice(rows, batch_size)):
        tokens = np.stack([tokens for tokens, _ in part]).astype(np.int64)
        lengths = np.array([length for _, length in part], np.int64)
        yield _to_batch(tokens, lengths, mix(0, 0, np.arange(start, start + len(part)), _KEY))
        start += len(part)


def _good_rows(store: MemberStore) -> Iterator[tuple[NDArray[np.unsignedinteger], int]]:
    for shard, info in enumerate(store.shards):
        for member in range(len(info.members)):
            if (block := store.read(shard, member)) is not None:
                yield from zip(*block, strict=True)


def _to_batch(tokens: Ids, lengths: Ids, keys: UInt64) -> Batch:
    positive = (keys >> np.uint64(1)).astype(np.int64)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(lengths), torch.from_numpy(positive))
