"""The files of one bucket of packed rows, and the rows that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.shards import Tokens
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID


@dataclass(frozen=True)
class Packed:
    """The files of one bucket: ``stream`` holds ids, ``rows`` the [R, 2] table, in the shuffled order of the shards;
    ``pairs`` the documents of each row, as lines of ``origins``."""

    stream: Path
    rows: Path
    pairs: Path
    origins: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Packed:
        kinds = ("stream.npy", "rows.npy", "pairs.npy", "origins.parquet")
        return cls(*(folder / f"{name}.{kind}" for kind in kinds))


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
