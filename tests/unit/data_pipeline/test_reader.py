"""The reader's laws: one order for all ranks, every sequence once an epoch, exact resume, bad data replaced."""

from __future__ import annotations

import io
import logging
import pickle
import shutil
import tarfile
import threading
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_folders import LENGTH, VOCAB, make_block, row_number, write_folder

from data_pipeline.crop import SHORTEST_CROP, Borders, Crop, crop
from data_pipeline.endless import Source
from data_pipeline.manifest import Manifest, ManifestError, Member
from data_pipeline.reader import Cursor, ShardReader, Share, evaluation_batches, spread_batch
from data_pipeline.tables import Shards
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID


def take(reader: ShardReader, count: int) -> list[Batch]:
    batches = list(islice(reader, count))
    reader.close()
    return batches


def numbers(batches: list[Batch]) -> list[int]:
    return [row_number(row) for batch in batches for row in batch.tokens.numpy()]


def same(left: Batch, right: Batch) -> bool:
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in ("tokens", "length", "key"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("shared"), rows=90)


def test_every_sequence_once_an_epoch_in_another_order_each_epoch(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=150)
    epochs = [numbers(take(ShardReader(folder, Share(10, seed=3)), 30)[half]) for half in (slice(15), slice(15, 30))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(150))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(150))


def test_batches_are_int64_of_fixed_shape_and_well_formed(tmp_path: Path) -> None:
    for batch in take(ShardReader(write_folder(tmp_path), Share(7), Crop(0.5)), 20):
        assert batch.tokens.shape == (7, LENGTH)
        assert batch.tokens.dtype == batch.length.dtype == batch.key.dtype == torch.int64
        assert (batch.key >= 0).all()
        assert (batch.tokens.gather(1, batch.length[:, None] - 1) == EOS_ID).all()
        assert torch.equal((batch.tokens != 0).sum(1), batch.length)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_global_batch_of_one_process(tmp_path: Path, world: int) -> None:
    folder = write_folder(tmp_path, rows=150)
    whole = take(ShardReader(folder, Share(8), Crop(0.3)), 40)
    parts = [
        take(ShardReader(folder, Share(8 // world, rank=rank, world=world), Crop(0.3)), 40) for rank in range(world)
    ]
    for expected, *shares in zip(whole, *parts, strict=True):
        joined = Batch(*(torch.cat([getattr(part, name) for part in shares]) for name in ("tokens", "length", "key")))
        assert same(joined, expected)


def test_an_epoch_begins_in_the_batch_in_which_the_one_before_ends(tmp_path: Path) -> None:
    reader = ShardReader(Source(write_folder(tmp_path, rows=150), epochs=2), Share(8))
    rows = numbers(list(reader))
    assert len(rows) == 296  # 300, but for the last incomplete batch
    assert sorted(rows[:150]) == list(range(150))
    assert len(set(rows[150:])) == 146
    assert next(reader, None) is None  # stays ended


@settings(max_examples=25, deadline=None)
@given(done=st.integers(0, 40), new_world=st.sampled_from([1, 2, 4]))
def test_resume_anywhere_is_bit_equal(shared: Path, done: int, new_world: int) -> None:
    reader = ShardReader(shared, Share(8, seed=5), Crop(0.3))
    list(islice(reader, done))
    cursor = Cursor.from_dict(reader.cursor.to_dict())
    expected = take(reader, 6)
    shares = [Share(8 // new_world, rank, new_world, seed=5) for rank in range(new_world)]
    resumed = [take(ShardReader(shared, share, Crop(0.3), cursor=cursor), 6) for share in shares]
    for batch, *parts in zip(expected, *resumed, strict=True):
        assert torch.equal(batch.tokens, torch.cat([part.tokens for part in parts]))
        assert torch.equal(batch.key, torch.cat([part.key for part in parts]))


def test_closing_and_going_on_loses_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    expected = take(ShardReader(folder, Share(4)), 10)
    reader = ShardReader(folder, Share(4), prefetch=8)
    batches = take(reader, 3) + take(reader, 7)
    assert all(map(same, batches, expected))


def test_batches_are_prepared_in_the_reading_thread_and_numbered_as_they_are_handed_out(tmp_path: Path) -> None:
    threads = set()

    def prepare(number: int, batch: Batch) -> Batch:
        threads.add(threading.current_thread().name)
        return Batch(batch.tokens, batch.length, torch.full_like(batch.key, number))

    folder = write_folder(tmp_path, rows=90)
    reader = ShardReader(folder, Share(10), prepare=prepare)
    parts = take(reader, 3) + take(reader, 4)  # what was ahead when it was closed is read and numbered again
    assert [batch.key.unique().tolist() for batch in parts] == [[number] for number in range(7)]
    assert threads == {"prefetch"}
    assert numbers(parts) == numbers(take(ShardReader(folder, Share(10)), 7))


def test_a_batch_that_is_prepared_elsewhere_is_waited_for_when_its_turn_comes(tmp_path: Path) -> None:
    def prepare(number: int, batch: Batch) -> Callable[[], Batch]:
        return lambda: batch

    folder = write_folder(tmp_path)
    reader = ShardReader(folder, Share(10), prepare=prepare)
    assert all(map(same, take(reader, 3), take(ShardReader(folder, Share(10)), 3)))


def test_an_error_in_preparing_a_batch_is_raised(tmp_path: Path) -> None:
    def prepare(number: int, batch: Batch) -> Batch:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        take(ShardReader(write_folder(tmp_path), Share(10), prepare=prepare), 1)


def test_keys_are_stable_and_unique(tmp_path: Path) -> None:
    batches = take(ShardReader(write_folder(tmp_path), Share(10, seed=1)), 30)
    keys = torch.cat([batch.key for batch in batches])
    assert len(set(keys.tolist())) == 300
    assert keys[:2].tolist() == [
        8160745652321985707,
        5255583715085522710,
    ]  # a changed hash would silently change every run


def test_crop_share_of_the_rows_is_cut(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=900, per_member=50)
    plain = take(ShardReader(folder, Share(100)), 9)
    cropped = take(ShardReader(folder, Share(100), Crop(0.4)), 9)
    before = torch.cat([batch.length for batch in plain])
    after = torch.cat([batch.length for batch in cropped])
    assert 0.25 < (after < before).float().mean() < 0.4  # of the chosen 0.4 some draw their full length
    assert after.min() == SHORTEST_CROP
    kept = torch.cat([batch.tokens for batch in plain])[after == before]
    assert torch.equal(kept, torch.cat([batch.tokens for batch in cropped])[after == before])


def test_a_cropped_row_begins_with_a_line_and_ends_with_a_sentence() -> None:
    line, sentence, count = 50, 51, 400
    draw = np.random.default_rng(0)
    tokens = draw.integers(42, 52, (count, 40))
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    before, lengths = tokens.copy(), np.full(count, 40)
    ends_line = np.arange(60) == line
    borders = Borders(ends_line, ends_line | (np.arange(60) == sentence), without_blank=np.full(60, -1))
    crop(tokens, lengths, np.arange(count, dtype=np.uint64), Crop(0.5, borders))
    changed = np.flatnonzero((tokens != before).any(1))
    assert 0.4 * count < len(changed) < 0.6 * count
    begun = ended = 0
    for row, length in zip(tokens[changed], lengths[changed], strict=True):
        assert (row[0], row[length - 1]) == (BOS_ID, EOS_ID)
        assert length >= SHORTEST_CROP
        assert (row[length:] == PAD_ID).all()
        inner = row[1 : length - 1].tolist()
        (source,) = (old for old in before[changed] if _place(old[1:-1].tolist(), inner) >= 0)
        start = _place(source[1:-1].tolist(), inner)
        begun += start > 0 and source[start] == line and line not in source[1:start]
        ended += inner[-1] in (line, sentence)
    assert begun > 0.4 * len(changed)  # the others have no line break, or have it near the end
    assert ended > 0.6 * len(changed)


def test_without_a_line_break_a_cropped_row_begins_with_a_sentence_and_without_its_blank() -> None:
    stop, blank_word, word = 51, 45, 44
    tokens = np.array([[BOS_ID, 42, stop, 43, stop, blank_word, *[46] * 20, EOS_ID]] * 50)
    lengths = np.full(50, tokens.shape[1])
    twin = np.full(60, -1)
    twin[blank_word] = word
    borders = Borders(np.arange(60) == 50, np.arange(60) == stop, twin)
    crop(tokens, lengths, np.arange(50, dtype=np.uint64), Crop(1.0, borders))
    assert (tokens[:, :3] == [BOS_ID, word, 46]).all()
    assert lengths.max() <= tokens.shape[1] - 4
    assert (tokens[np.arange(50), lengths - 1] == EOS_ID).all()


def _place(whole: list[int], part: list[int]) -> int:
    return next((n for n in range(len(whole) - len(part) + 1) if whole[n : n + len(part)] == part), -1)


def test_another_seed_than_the_cursors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed=2 is not the seed 1"):
        ShardReader(write_folder(tmp_path), Share(4, seed=2), cursor=Cursor(seed=1))


def test_too_little_data_for_one_global_batch(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"has 20 sequences, a global batch needs 32: lower batch\.sequences"):
        ShardReader(write_folder(tmp_path, rows=20), Share(16, world=2))


@pytest.mark.parametrize("rows", [1, 37, 150])
def test_evaluation_yields_everything_once_in_order(tmp_path: Path, rows: int) -> None:
    batches = list(evaluation_batches(write_folder(tmp_path, rows=rows, split="dev"), "dev", batch_size=20))
    assert numbers(batches) == list(range(rows))
    assert len({int(key) for batch in batches for key in batch.key}) == rows


def test_evaluation_limit(tmp_path: Path) -> None:
    assert numbers(list(evaluation_batches(write_folder(tmp_path), "train", batch_size=8, limit=13))) == list(range(13))


# --- what is bad -----------------------------------------------------------------------------------------------------


def truncate(shard: Path, _: Member) -> None:
    shard.write_bytes(shard.read_bytes()[:3000])


def flip_bit(shard: Path, member: Member) -> None:
    content = bytearray(shard.read_bytes())
    content[member.offset + 512 + member.bytes - 40] ^= 4
    shard.write_bytes(content)


def replace_with_text(shard: Path, _: Member) -> None:
    shard.write_bytes(b"not a tar" * 2000)


def remove(shard: Path, _: Member) -> None:
    shard.unlink()


def traversal_name(shard: Path, member: Member) -> None:
    with_header(shard, member, "../../evil.tokens.npy")


def link_member(shard: Path, member: Member) -> None:
    with_header(shard, member, "train-000001-000002.tokens.npy", kind=tarfile.SYMTYPE)


def with_header(shard: Path, member: Member, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = member.bytes, kind
    content = bytearray(shard.read_bytes())
    content[member.offset : member.offset + 512] = entry.tobuf(tarfile.USTAR_FORMAT)
    shard.write_bytes(content)


MUTATIONS = [truncate, flip_bit, replace_with_text, remove, traversal_name, link_member]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_bad_member_is_named_once_counted_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mutate: Callable[[Path, Member], None]
) -> None:
    folder = write_folder(tmp_path, rows=160)
    healthy = numbers(take(ShardReader(folder, Share(16)), 20))
    mutate(folder / "train-000001.tar", Manifest.load(folder).splits["train"].shards[1].members[2])
    with caplog.at_level(logging.WARNING):
        reader = ShardReader(folder, Share(16))
        hurt = numbers(take(reader, 20))
    assert 1 <= reader.quarantined <= 5
    assert len(caplog.messages) == reader.quarantined
    assert all("train-000001.tar" in message for message in caplog.messages)
    touched = set(range(40, 80))
    changed = [was for was, now in zip(healthy, hurt, strict=True) if was != now]
    assert len(changed) >= 16  # all rows of one member in two epochs
    assert set(changed) <= touched
    assert numbers(take(ShardReader(folder, Share(16)), 20)) == hurt  # the same replacements each time


def mutate_anywhere(content: bytearray, draw: np.random.Generator) -> bytes:
    """Cut, changed, shifted or put together anew, at one to four places."""
    for _ in range(draw.integers(1, 5)):
        start, length = int(draw.integers(0, len(content) + 1)), int(draw.choice([0, 1, 2, 30, 600, 10**6]))
        other = int(draw.integers(0, len(content) + 1))
        new = [draw.bytes(int(draw.integers(0, 41))), bytes(length % 10_000), content[other : other + length]]
        content[start : start + length] = new[draw.integers(0, 3)]
    return bytes(content)


@pytest.mark.parametrize(
    "trials",
    [range(60), *(pytest.param(range(start, start + 95), marks=pytest.mark.slow) for start in range(60, 1010, 95))],
)
def test_no_mutation_of_a_shard_gets_through(shared: Path, tmp_path: Path, caplog, trials: range) -> None:
    """Every row that is handed out is a row that was written, every member that is lost is counted and named."""
    folder = Path(shutil.copytree(shared, tmp_path / "copy"))
    shard = folder / "train-000000.tar"
    content = shard.read_bytes()
    members = Manifest.load(folder).split("train").shards[0].members
    for trial in trials:
        caplog.clear()
        shard.write_bytes(mutate_anywhere(bytearray(content), np.random.default_rng(trial)))
        reader = ShardReader(Source(folder, epochs=1), Share(10))
        rows = [row.tolist() for batch in reader for row in batch.tokens.numpy()]
        assert rows == [make_block(row_number(np.array(row)), 1)[0].tolist() for row in rows]
        assert len(rows) == 90
        written = shard.read_bytes()
        lost = [m for m in members if written[m.offset :][: 512 + m.bytes] != content[m.offset :][: 512 + m.bytes]]
        assert reader.quarantined == len(caplog.messages) <= len(lost)
        assert {row_number(np.array(row)) for row in rows} >= set(range(40, 90))
        kept = {row_number(np.array(row)) for row in rows} & set(range(40))
        assert len(kept) == 40 - 8 * reader.quarantined


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code from a shard was run')",))


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def huge() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<u2", "fortran_order": False, "shape": (2**40, LENGTH)})
    return buffer.getvalue() + bytes(64)


def npy(block: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, block)
    return buffer.getvalue()


def changed_block(**cells: int) -> np.ndarray:
    block = make_block(0, 8)
    for cell, value in cells.items():
        block[0, int(cell[1:])] = value
    return block


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut after its members were checked: named and replaced, and no end of the process."""
    folder = write_folder(tmp_path, rows=160)
    reader = ShardReader(Source(folder, epochs=2), Share(16), prefetch=1)
    first = [next(reader) for _ in range(10)]
    with (folder / "train-000001.tar").open("r+b") as shard:
        shard.truncate(3000)
    rows = numbers(list(reader))
    assert sorted(numbers(first)) == list(range(160))
    assert set(rows) >= {*range(40), *range(80, 160)}
    assert reader.quarantined == len(caplog.messages) > 0
    assert "has become shorter" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickled(), "array object"),
        (pickle.dumps(Bomb()), "not a .npy array"),
        (huge(), "array uint16"),
        (b"", "not a .npy array"),
        (npy(make_block(0, 8))[:-2], "another size"),
        (npy(make_block(0, 7)), "array uint16"),
        (npy(make_block(0, 8).astype(np.float32)), "array float32"),
        (npy(np.asfortranarray(make_block(0, 8))), "array uint16"),
        (npy(changed_block(_3=VOCAB)), f"id {VOCAB} is not below vocab_size"),
        (npy(changed_block(_0=9)), "rows are not BOS"),
        (npy(changed_block(_3=0)), "rows are not BOS"),
        (npy(changed_block(_3=4)), "rows are not BOS"),
        (npy(changed_block(_9=9)), "rows are not BOS"),
    ],
)
def test_a_manifest_that_vouches_for_bad_content_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    folder = write_folder(tmp_path, rows=16, members=1)
    forge(folder, content)
    reader = ShardReader(folder, Share(16))
    batch = take(reader, 1)[0]
    assert reader.quarantined == 1
    assert reason in caplog.text
    assert set(numbers([batch])) == set(range(8, 16))


def forge(folder: Path, content: bytes) -> None:
    """Shard 0 with ``content`` as its only member, and a manifest that fits it."""
    manifest = Manifest.load(folder)
    shard = manifest.splits["train"].shards[0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("train-000000-000000.tokens.npy")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    (folder / shard.file).write_bytes(buffer.getvalue())
    member = Member(0, len(content), zlib.crc32(content), 8)
    forged = shard.model_copy(update={"bytes": len(buffer.getvalue()), "members": (member,)})
    shards = Shards.of([forged, *manifest.splits["train"].shards[1:]])
    split = manifest.splits["train"].model_copy(update={"shards": shards})
    manifest.model_copy(update={"splits": {"train": split}}).save(folder)


# --- a sample of a split ---------------------------------------------------------------------------------------------


def test_many_small_shards_need_few_open_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=400, per_member=1, members=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = ShardReader(Source(folder, epochs=1), Share(200))
    rows = numbers([next(reader), next(reader)])
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 100
    assert sorted(rows) == list(range(400))


def test_sample_is_spread_over_the_whole(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=150)
    assert numbers([spread_batch(folder, "train", 5)]) == [0, 30, 60, 90, 120]
    assert numbers([spread_batch(folder, "train", 999)]) == list(range(150))
    assert same(spread_batch(folder, "train", 7), spread_batch(folder, "train", 7))


def test_sample_leaves_out_what_is_bad(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=150)
    (folder / "train-000001.tar").unlink()
    whole, rest = spread_batch(write_folder(tmp_path / "good"), "train", 15), spread_batch(folder, "train", 15)
    assert numbers([rest]) == [number for number in numbers([whole]) if not 40 <= number < 80]
    assert set(rest.key.tolist()) < set(whole.key.tolist()), "a text draws the same, whatever else is there"
    for shard in folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(ManifestError, match="no good sequence"):
        spread_batch(folder, "train", 15)
