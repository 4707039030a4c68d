"""The files of one bucket of packed rows, and the rows that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline import arrays
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
    stream, table = np.asarray(arrays.mapped(packed.stream)), np.asarray(arrays.mapped(packed.rows))
    places = np.arange(max_length)
    for begin in range(first, stop, rows_per_block):
        starts, lengths = table[begin : min(begin + rows_per_block, stop), :, None].transpose(1, 0, 2)
        is_content = (places > 0) & (places <= lengths)
        block = np.full(is_content.shape, PAD_ID, stream.dtype)
        block[is_content] = stream[(starts + places - 1)[is_content]]
        block[:, 0] = BOS_ID
        np.put_along_axis(block, lengths + 1, EOS_ID, axis=1)
        yield block


def row_ids(packed: Packed) -> Iterator[list[int]]:
    """The ids of every row, BOS and EOS excluded, in the order of the shards."""
    stream, table = np.load(packed.stream, mmap_mode="r"), np.load(packed.rows)
    for start, length in table.tolist():
        yield stream[start : start + length].tolist()
