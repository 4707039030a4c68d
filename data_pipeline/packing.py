"""Stage 3: from documents to one stream of ids per split, and the table of rows that are cut from it.

A training row is any ``max_length - 2`` consecutive ids of the shuffled documents or, with ``packing: documents``, as
many whole ones as fit, each with a BOS and an EOS of its own. A dev or test row never holds parts of two documents: the
first row of a document starts where the document does.
"""

# N documents, R rows, P parts of documents

from __future__ import annotations

import bisect
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_pipeline import documents
from data_pipeline.files import replacing, write_atomically
from data_pipeline.hashing import permutation, text_hash
from data_pipeline.manifest import SPLITS
from data_pipeline.progress import ProgressBar
from data_pipeline.shards import Tokens, token_dtype
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

Rows = NDArray[np.int64]  # [R, 2] start in the stream and number of ids

SHORTEST_ROW = 8  # ids of a dev or test row, BOS and EOS excluded


@dataclass(frozen=True)
class Packed:
    """The files of one split: ``stream`` holds ids, ``rows`` the [R, 2] table, in the shuffled order of the shards."""

    stream: Path
    rows: Path
    counts: Path

    @classmethod
    def of(cls, folder: Path, split: str) -> Packed:
        return cls(*(folder / f"{split}.{kind}" for kind in ("stream.npy", "rows.npy", "counts.json")))

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.stream, self.rows, self.counts


def pack(folder: Path, tokenizer_file: Path, config: DataBuildConfig) -> None:
    """Tokenises ``folder/documents.parquet`` with Ray and writes the ``Packed`` files of all splits beside it."""
    tokenizer, seed, size = Tokenizer(tokenizer_file), config.seed, config.max_length - 2
    ids: dict[str, list[Tokens]] = {split: [] for split in SPLITS}
    for split, part in _tokenised(folder, tokenizer_file, token_dtype(tokenizer.vocab_size)):
        ids[split].append(part)
    newline = np.array(tokenizer.encode("\n"), token_dtype(tokenizer.vocab_size))
    continues = np.array([tokenizer.continues(index) for index in range(tokenizer.vocab_size)])
    for split in SPLITS:
        target = Packed.of(folder, split)
        order = permutation(len(ids[split]), seed, text_hash(split))
        parts = [part for index in order for part in (ids[split][index], newline)]
        stream = np.concatenate(parts) if parts else newline[:0]
        if split == "train" and config.packing == "stream":
            rows = training_rows(len(stream), size)
        else:
            lengths = [len(ids[split][index]) for index in order]
            rows = document_rows(lengths, len(newline), size, stream, continues)
        tokens = int(rows[:, 1].sum())
        if split == "train" and config.packing == "documents":
            stream, rows = packed_rows(stream, rows, size)
        rows = rows[permutation(len(rows), seed, text_hash(f"{split} rows"))]
        _save(target.stream, stream)
        _save(target.rows, rows)
        counts = {"documents": len(ids[split]), "tokens": tokens, "rows": len(rows)}
        write_atomically(target.counts, json.dumps(counts).encode())


def training_rows(stream_length: int, size: int) -> Rows:
    """Consecutive rows of ``size`` ids; an incomplete last row is dropped unless it is the only one."""
    starts = (
        np.arange(0, stream_length - size + 1, size) if stream_length >= size else np.zeros(min(stream_length, 1), int)
    )
    return np.stack([starts, np.full(len(starts), min(size, stream_length))], axis=1).astype(np.int64)


def document_rows(lengths: Sequence[int], gap: int, size: int, stream: Tokens, continues: NDArray[np.bool_]) -> Rows:
    """Rows of at most ``size`` ids, each inside one document; cut between characters, none below SHORTEST_ROW ids.

    ``gap``: ids between two documents. ``continues`` [V]: ids that begin with a later byte of a character.
    """
    rows = []
    start = 0
    for length in lengths:
        stop = start + length
        while stop - start >= SHORTEST_ROW:
            cut = min(start + size, stop)
            while cut < stop and cut > start + 1 and continues[stream[cut]]:
                cut -= 1
            rows.append((start, cut - start))
            start = cut
        start = stop + gap
    return np.array(rows, np.int64).reshape(-1, 2)


def packed_rows(stream: Tokens, parts: Rows, size: int) -> tuple[Tokens, Rows]:
    """The parts [P, 2] of documents in ``stream``, put together to rows of at most ``size`` ids: another stream and its
    rows [R, 2]. Between two parts of a row stand the EOS of the first and the BOS of the second."""
    border = np.array([EOS_ID, BOS_ID], stream.dtype)
    ids: list[Tokens] = []
    lengths: list[int] = []
    for row in best_fit(parts[:, 1].tolist(), size, len(border)):
        bordered = [piece for start, length in parts[row] for piece in (border, stream[start : start + length])]
        ids += bordered[1:]
        lengths.append(sum(map(len, bordered[1:])))
    starts = np.cumsum([0, *lengths])[:-1]
    return np.concatenate([stream[:0], *ids]), np.array([starts, lengths], np.int64).T


def best_fit(lengths: Sequence[int], size: int, between: int) -> list[list[int]]:
    """Indices of the ``lengths`` in each row of ``size``, ``between`` places left free between two of them.

    Best fit, the longest first (Ding et al. 2024): each goes where it leaves the least room.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # free places: rows
    rooms: list[int] = []  # of those that there are, in ascending order
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        needed, place = lengths[index] + between, bisect.bisect_left(rooms, lengths[index] + between)
        if place == len(rooms):
            row, room = len(rows), size + between
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(place)
        rows[row].append(index)
        left = with_room.setdefault(room - needed, [])
        if not left:
            bisect.insort(rooms, room - needed)
        left.append(row)
    return rows


def blocks(packed: Packed, first: int, stop: int, rows_per_block: int, max_length: int) -> Iterator[Tokens]:
    """Rows ``first`` … ``stop`` - 1 as arrays [≤ rows_per_block, max_length] of ``BOS … EOS PAD …``."""
    stream, table = np.load(packed.stream, mmap_mode="r"), np.load(packed.rows, mmap_mode="r")
    for begin in range(first, stop, rows_per_block):
        part = table[begin : min(begin + rows_per_block, stop)]
        block = np.full((len(part), max_length), PAD_ID, stream.dtype)
        block[:, 0] = BOS_ID
        for row, (start, length) in zip(block, part, strict=True):
            row[1 : 1 + length] = stream[start : start + length]
            row[1 + length] = EOS_ID
        yield block


def row_ids(packed: Packed) -> Iterator[list[int]]:
    """The ids of every row, BOS and EOS excluded, in the order of the shards."""
    stream, table = np.load(packed.stream, mmap_mode="r"), np.load(packed.rows)
    for start, length in table.tolist():
        yield stream[start : start + length].tolist()


def _tokenised(folder: Path, tokenizer_file: Path, dtype: np.dtype[Any]) -> Iterator[tuple[str, Tokens]]:
    """(split, ids) of every document, in order."""
    import ray

    data = ray.data.read_parquet(str(folder / documents.DOCUMENTS_FILE))
    encoded = data.map_batches(
        encode_documents,
        fn_kwargs={"tokenizer_file": str(tokenizer_file), "dtype": dtype.str},
        batch_format="pyarrow",
        batch_size=256,
    )
    total = pa.parquet.ParquetFile(folder / documents.DOCUMENTS_FILE).metadata.num_rows
    with ProgressBar("tokenise", total) as bar:
        done = 0
        for table in encoded.iter_batches(batch_format="pyarrow", batch_size=None):
            for split, content in zip(table["split"].to_pylist(), table["ids"].to_pylist(), strict=True):
                yield split, np.frombuffer(content, dtype)
            done += len(table)
            bar.advance_to(done)


def encode_documents(batch: pa.Table, tokenizer_file: str, dtype: str) -> pa.Table:
    """Runs in Ray's processes (the tokenizers' own threads would gain nothing)."""
    ids = _tokenizer(tokenizer_file).encode_lines(batch["text"].to_pylist())
    return pa.table(
        {"split": batch["split"], "ids": pa.array([np.array(part, dtype).tobytes() for part in ids], pa.large_binary())}
    )


@functools.lru_cache(maxsize=1)
def _tokenizer(file: str) -> Tokenizer:
    return Tokenizer(file)


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
