"""``packing: documents``: whole documents share training rows, and come out of the reader as texts of their own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.crop import Crop, unpack
from data_pipeline.manifest import Manifest, SplitInfo
from data_pipeline.packed import Packed, blocks
from data_pipeline.reader import ShardReader, Share
from data_pipeline.rows import best_fit, packed_rows
from data_pipeline.shards import BadMember, read_member, write_shard
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID

VOCAB, LENGTH = 4000, 16
FIRST = 10  # lowest id of a document
lengths_of_documents = st.lists(st.integers(1, LENGTH - 2), min_size=1, max_size=40)


@given(lengths_of_documents)
def test_every_document_has_one_place(lengths: list[int]) -> None:
    rows = best_fit(lengths, LENGTH - 2, 2)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert max(sum(lengths[index] + 2 for index in row) for row in rows) <= LENGTH


def test_little_is_left_free() -> None:
    lengths = np.random.default_rng(0).integers(8, 127, 2000).tolist()
    rows = best_fit(lengths, 126, 2)
    assert sum(lengths) + 2 * len(lengths) > 0.97 * 128 * len(rows)


def stream_of(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents of ids that occur nowhere else, and where they stand."""
    starts = np.cumsum([0, *lengths])[:-1]
    return np.arange(FIRST, FIRST + sum(lengths), dtype=np.uint16), np.stack([starts, lengths], 1).astype(np.int64)


def make_rows(lengths: list[int], folder: Path) -> np.ndarray:
    """[R, T] as they stand in shards."""
    stream, rows = packed_rows(*stream_of(lengths), LENGTH - 2)
    packed = Packed.of(folder, "train")
    np.save(packed.stream, stream)
    np.save(packed.rows, rows)
    return np.concatenate(list(blocks(packed, 0, len(rows), 1000, LENGTH)))


@given(lengths=lengths_of_documents)
def test_rows_give_the_documents_back(lengths: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = make_rows(lengths, tmp_path_factory.mktemp("packed")).astype(np.int64)
    tokens, length, number, place = unpack(rows, (rows != PAD_ID).sum(1))
    stream, parts = stream_of(lengths)
    assert sorted(text[:size].tolist() for text, size in zip(tokens, length, strict=True)) == sorted(
        [BOS_ID, *stream[start : start + size], EOS_ID] for start, size in parts.tolist()
    )
    assert (tokens[np.arange(LENGTH) >= length[:, None]] == PAD_ID).all()
    assert number.sum() == len(lengths)
    assert place.tolist() == [index for count in number for index in range(count)]


def write_folder(folder: Path, lengths: list[int], packing: str = "documents") -> Path:
    rows = make_rows(lengths, folder)
    shard = write_shard(folder, "train-000000.tar", np.array_split(rows, 4))
    Manifest(
        source="test",
        config_digest="0" * 64,
        tokenizer_digest="0" * 64,
        vocab_size=VOCAB,
        max_length=LENGTH,
        packing=packing,
        dtype="uint16",
        splits={"train": SplitInfo(documents=len(lengths), tokens=sum(lengths), rows=len(rows), shards=(shard,))},
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lengths = np.random.default_rng(1).integers(1, LENGTH - 1, 200).tolist()
    return write_folder(tmp_path_factory.mktemp("data"), lengths)


def take(reader: ShardReader, count: int) -> list[Batch]:
    batches = list(islice(reader, count))
    reader.close()
    return batches


def texts(batches: list[Batch]) -> list[tuple[int, ...]]:
    """Ids and key of every text."""
    return [
        (*row[:size], key)
        for batch in batches
        for row, size, key in zip(batch.tokens.tolist(), batch.length.tolist(), batch.key.tolist(), strict=True)
    ]


def test_texts_of_a_step_do_not_depend_on_the_number_of_ranks(folder: Path) -> None:
    alone = take(ShardReader(folder, Share(8, seed=3), Crop(0.3)), 5)
    ranks = [take(ShardReader(folder, Share(4, rank=rank, world=2, seed=3), Crop(0.3)), 5) for rank in range(2)]
    for batch, *parts in zip(alone, *ranks, strict=True):
        assert texts([batch]) == texts(parts)
        assert batch.texts_in_row.tolist() == [count for part in parts for count in part.texts_in_row]
        assert len(batch.texts_in_row) == 8
    assert len(set(texts(alone))) == len(texts(alone))  # each text draws for itself


def test_a_reader_goes_on_where_another_one_stopped(folder: Path) -> None:
    whole = take(ShardReader(folder, Share(8, seed=3)), 6)
    first = ShardReader(folder, Share(8, seed=3))
    take(first, 2)
    assert texts(take(ShardReader(folder, Share(8, seed=3), cursor=first.cursor), 4)) == texts(whole[2:])


def test_parts_have_equally_many_rows(folder: Path) -> None:
    (batch,) = take(ShardReader(folder, Share(8, seed=3)), 1)
    parts = batch.parts(4)
    assert texts(parts) == texts([batch])
    assert [len(part.texts_in_row) for part in parts] == [2] * 4
    for part in parts:
        assert part.texts_per_row == len(part.length) / 2
        assert torch.equal(torch.from_numpy(part.lengths), part.length)


def test_rows_of_several_texts_are_refused_where_the_manifest_knows_of_none(folder: Path) -> None:
    shard = Manifest.load(folder).split("train").shards[0]
    with (folder / shard.file).open("rb") as file:
        known = file, "train-000000-000003.tokens.npy", shard.members[3], LENGTH, VOCAB
        read_member(*known, packed=True)
        with pytest.raises(BadMember, match=r"rows are not BOS … EOS PAD …"):
            read_member(*known)


@pytest.mark.parametrize("border", [[EOS_ID, EOS_ID], [BOS_ID, EOS_ID], [BOS_ID, BOS_ID]])
def test_texts_that_do_not_end_are_refused(border: list[int], tmp_path: Path) -> None:
    row = np.array([[BOS_ID, 10, *border, 11, EOS_ID, *[PAD_ID] * 10]], np.uint16)
    shard = write_shard(tmp_path, "train-000000.tar", [row])
    with (tmp_path / shard.file).open("rb") as file, pytest.raises(BadMember):
        read_member(file, "train-000000-000000.tokens.npy", shard.members[0], LENGTH, VOCAB, packed=True)
