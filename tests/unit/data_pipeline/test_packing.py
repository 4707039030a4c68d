from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packed import Packed, blocks
from data_pipeline.rows import SHORTEST_ROW, document_rows, training_rows
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID

NEVER = np.zeros(100, bool)


@given(st.integers(0, 500), st.integers(1, 62))
def test_training_rows_are_whole_and_follow_each_other(stream: int, size: int) -> None:
    rows = training_rows(stream, size).tolist()
    if stream < size:
        assert rows == ([[0, stream]] if stream else [])
    else:
        assert rows == [[start, size] for start in range(0, stream - size + 1, size)]


@given(st.lists(st.integers(0, 90), max_size=8), st.integers(10, 30))
def test_document_rows_lose_only_short_ends(lengths: list[int], size: int) -> None:
    rows = document_rows(lengths, 1, size, np.full(1000, 50, np.uint16), NEVER)
    starts = np.cumsum([0, *(length + 1 for length in lengths)])[:-1].tolist()
    expected = [
        (start + at, min(size, length - at))
        for start, length in zip(starts, lengths, strict=True)
        for at in range(0, length, size)
        if length - at >= SHORTEST_ROW
    ]
    assert list(map(tuple, rows.tolist())) == expected


@given(st.lists(st.booleans(), min_size=200, max_size=200))
def test_document_rows_never_split_a_character(inside: list[bool]) -> None:
    inside = [part and any(not one for one in inside[max(at - 3, 0) : at]) for at, part in enumerate(inside)]
    stream = np.where(inside, 99, 50).astype(np.uint16)
    continues = NEVER.copy()
    continues[99] = True
    rows = document_rows([200], 1, 30, stream, continues).tolist()
    assert not any(inside[start] for start, _ in rows)
    assert all(start + length == next_start for (start, length), (next_start, _) in pairwise(rows))


def test_blocks(tmp_path: object) -> None:
    packed = Packed.of(tmp_path, "dev")  # type: ignore[arg-type]
    np.save(packed.stream, np.arange(10, 60, dtype=np.uint16))
    np.save(packed.rows, np.array([[0, 4], [20, 2], [46, 4]]))
    packed_blocks = list(blocks(packed, 0, 3, rows_per_block=2, max_length=6))
    assert [block.tolist() for block in packed_blocks] == [
        [[BOS_ID, 10, 11, 12, 13, EOS_ID], [BOS_ID, 30, 31, EOS_ID, PAD_ID, PAD_ID]],
        [[BOS_ID, 56, 57, 58, 59, EOS_ID]],
    ]


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(3, 20), st.integers(1, 7))
def test_blocks_hold_the_rows_of_the_table(seed: int, rows: int, max_length: int, rows_per_block: int) -> None:
    generator = np.random.default_rng(seed)
    stream = generator.integers(6, 1000, 60).astype(np.uint16)
    lengths = generator.integers(0, max_length - 1, rows)
    table = np.stack([generator.integers(0, len(stream) - lengths + 1), lengths], axis=1)
    with TemporaryDirectory() as folder:
        packed = Packed.of(Path(folder), "train")
        np.save(packed.stream, stream)
        np.save(packed.rows, table)
        together = np.concatenate(list(blocks(packed, 0, rows, rows_per_block, max_length)))
    for row, (start, length) in zip(together.tolist(), table.tolist(), strict=True):
        content = stream[start : start + length].tolist()
        assert row == [BOS_ID, *content, EOS_ID, *[PAD_ID] * (max_length - length - 2)]
