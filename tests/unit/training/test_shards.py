"""Pieces written by any number of ranks are found again by any other number, element for element."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dualmask.training.shards import (
    INDEX,
    MOMENTS,
    WEIGHT,
    FlatRange,
    Piece,
    ShardFolder,
    write_index,
    write_merged,
    write_pieces,
)

KINDS = (WEIGHT, *MOMENTS)
SHAPES = {"column": ((8, 3), 0), "row": ((5, 8), 1), "vector": ((7,), None), "split vector": ((8,), 0)}


def whole(name: str, kind: str) -> Tensor:
    shape = SHAPES[name][0]
    return torch.arange(math.prod(shape)).view(shape) + 100.0 * KINDS.index(kind)


def flat_ranges(name: str, data_size: int, tensor_size: int, border: int) -> Iterator[tuple[int, FlatRange]]:
    """(rank that writes it, range) of all pieces; ``border`` shifts where a slice is cut."""
    _shape, axis = SHAPES[name]
    slices = whole(name, WEIGHT).chunk(tensor_size, dim=axis) if axis is not None else [whole(name, WEIGHT)]
    for tensor_rank, part in enumerate(slices):
        cuts = sorted({0, part.numel(), *((border + step * 3) % part.numel() for step in range(1, data_size))})
        for data_rank, (start, end) in enumerate(itertools.pairwise(cuts)):
            own_axis = axis if tensor_size > 1 else None
            flat_range = FlatRange(name, tuple(part.shape), own_axis, tensor_rank, start, end - start)
            yield data_rank * tensor_size + tensor_rank, flat_range


def cut_out(flat_range: FlatRange, tensor_size: int, kind: str) -> Tensor:
    value = whole(flat_range.name, kind)
    if flat_range.axis is not None:
        value = value.chunk(tensor_size, dim=flat_range.axis)[flat_range.tensor_rank]
    return value.flatten()[flat_range.start : flat_range.start + flat_range.count]


def write(folder: Path, data_size: int, tensor_size: int, border: int) -> None:
    by_rank: dict[int, list[Piece]] = {}
    for name in SHAPES:
        for rank, flat_range in flat_ranges(name, data_size, tensor_size, border):
            tensors = {kind: cut_out(flat_range, tensor_size, kind).clone() for kind in KINDS}
            by_rank.setdefault(rank, []).append(Piece(flat_range, tensors))
    entries = [entry for rank, pieces in by_rank.items() for entry in write_pieces(folder, rank, pieces)]
    write_index(folder, entries, tensor_size=tensor_size, updates=3)


SIZES = st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(0, 20))


@given(SIZES, SIZES)
def test_any_division_to_any_other(written: tuple[int, int, int], read: tuple[int, int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), *written)
        shards = ShardFolder(Path(folder))
        assert shards.updates == 3
        for name in SHAPES:
            assert all(torch.equal(shards.whole(name, kind), whole(name, kind)) for kind in KINDS)
            for _, flat_range in flat_ranges(name, *read):
                for kind in KINDS:
                    assert torch.equal(shards.part(flat_range, read[1], kind), cut_out(flat_range, read[1], kind))


def test_merged_is_what_one_process_writes(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "one").mkdir()
    write(tmp_path / "many", 3, 2, 1)
    write_merged(ShardFolder(tmp_path / "many"), tmp_path / "one")
    merged = ShardFolder(tmp_path / "one")
    assert merged.names == list(SHAPES)
    assert (merged.updates, merged.tensor_size) == (3, 1)
    for name in SHAPES:
        everything = FlatRange(name, SHAPES[name][0], None, 0, 0, whole(name, WEIGHT).numel())
        assert all(torch.equal(merged.part(everything, 1, kind), whole(name, kind).flatten()) for kind in KINDS)
    assert len(list((tmp_path / "one" / "shards").iterdir())) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, 2, 1, 1)
    with pytest.raises(ValueError, match=r"holds no other\.weight: it was written by another model"):
        ShardFolder(tmp_path).whole("other.weight")
    index = json.loads((tmp_path / INDEX).read_text())
    removed = index["pieces"].pop(0)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"holds only {24 - removed['count']} of 24 elements of weight of column"):
        ShardFolder(tmp_path).whole("column")
    other = FlatRange("row", (7, 4), 1, 0, 0, 28)
    with pytest.raises(ValueError, match=r"row has slices \(5, 4\), here \(7, 4\)"):
        ShardFolder(tmp_path).part(other, 2)
    (tmp_path / INDEX).write_text(json.dumps(index | {"format": 9}))
    with pytest.raises(ValueError, match="has format 9, this version reads 1"):
        ShardFolder(tmp_path)
