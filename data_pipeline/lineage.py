"""Where the documents of each row come from: carried beside the ids from the blocks to the shards.

A block of ``documents/`` leaves a table [3, N] of its documents, in the order of the shuffle, and the names of their
files; a bucket leaves one table of all its documents; a shard has ``lineage/SPLIT-NUMBER.parquet``, one record
(row, file, start, stop) for each document that a row holds a part of.
"""

# N documents, P pairs of a row and a document

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipeline import arrays
from data_pipeline.files import replacing, write_atomically

FOLDER = "lineage"

Pairs = NDArray[np.int64]  # [2, P] row and document, rows in ascending order

_RECORDS = 2**14  # of a row group: what has to be read to trace one row
_EMPTY = pa.table(
    {
        "file": pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string())),
        "start": pa.array([], pa.int64()),
        "stop": pa.array([], pa.int64()),
    }
)


def file_of(shard: str) -> str:
    """The path of a shard's lineage in the data folder."""
    return f"{FOLDER}/{Path(shard).with_suffix('.parquet').name}"


class Origins:
    """The places of documents that are collected one by one."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._places: list[tuple[int, int, int]] = []

    def add(self, file: str, start: int, stop: int) -> None:
        self._places.append((self._files.setdefault(file, len(self._files)), start, stop))

    def save(self, folder: Path, name: str, order: NDArray[np.int64]) -> None:
        """``order`` [N]: which document comes first, second, …"""
        write_atomically(folder / f"{name}.files.json", json.dumps(list(self._files)).encode())
        arrays.save(folder / f"{name}.places.npy", np.array(self._places, np.int64)[order].T)


def saved_origins(folder: Path, name: str, wanted: slice) -> pa.Table:
    """(file, start, stop) of some of the documents that ``Origins.save`` has saved."""
    files, starts, stops = arrays.mapped(folder / f"{name}.places.npy")[:, wanted]
    names = json.loads((folder / f"{name}.files.json").read_bytes())
    used, numbers = np.unique(files, return_inverse=True)
    dictionary = pa.array([names[number] for number in used.tolist()], pa.string())
    column = pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), dictionary)
    return pa.table({"file": column, "start": pa.array(starts), "stop": pa.array(stops)})


def save_bucket(path: Path, tables: Sequence[pa.Table], order: NDArray[np.int64]) -> None:
    """Writes the documents of ``tables`` in ``order`` [N]."""
    table = pa.concat_tables([_EMPTY, *tables]).unify_dictionaries().take(pa.array(order))
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def write(output: Path, shard: str, pairs: Path, origins: Path, first: int, stop: int) -> None:
    """Writes the lineage of the rows ``first`` … ``stop`` - 1 of a bucket, whose pairs and documents are given."""
    of_bucket = arrays.mapped(pairs)
    rows, documents = np.array(of_bucket[:, arrays.value_range(of_bucket[0], first, stop)])
    table = pq.read_table(origins).take(pa.array(documents))
    table = table.set_column(0, "file", table["file"].cast(pa.string())).add_column(0, "row", pa.array(rows - first))
    path = output / file_of(shard)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, row_group_size=_RECORDS, store_schema=False)


def documents_of_rows(rows: NDArray[np.int64], lengths: Sequence[int], gap: int) -> Pairs:
    """The documents that each of the ``rows`` [R, 2] of a stream holds a part of; documents of ``lengths`` [N] stand in
    the stream one behind the other, ``gap`` ids between two."""
    starts = np.cumsum([0, *lengths])[:-1] + gap * np.arange(len(lengths))
    stops = starts + np.array(lengths, np.int64)
    first = np.searchsorted(stops, rows[:, 0], "right")
    counts = np.maximum(np.searchsorted(starts, rows.sum(axis=1), "left") - first, 0)
    row = np.repeat(np.arange(len(rows)), counts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([row, first[row] + number]).astype(np.int64)


def joined(pairs: Pairs, together: Sequence[Sequence[int]]) -> Pairs:
    """The pairs of rows that are put ``together``, given those of rows that hold one document each."""
    row = np.repeat(np.arange(len(together)), list(map(len, together)))
    documents = pairs[1][np.array([part for parts in together for part in parts], np.int64)]
    both = np.stack([row, documents]).astype(np.int64)
    return both[:, np.sort(np.unique(both, axis=1, return_index=True)[1])]


def reordered(pairs: Pairs, order: NDArray[np.int64]) -> Pairs:
    """The pairs after row ``order[0]`` has become the first, and so on."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rows = place[pairs[0]]
    ascending = np.argsort(rows, kind="stable")
    return np.stack([rows, pairs[1]])[:, ascending]
