"""One order for all: 1, 2 and 4 ranks, 1 to 3 weighted sources, resumed anywhere, from a disk or an object store."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from contextlib import ExitStack
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_store import requests, serving
from shard_folders import row_number, write_folder

from data_pipeline import order, remote, store
from data_pipeline.crop import Crop
from data_pipeline.endless import Place, Source
from data_pipeline.manifest import Manifest, ManifestError
from data_pipeline.mixture import BLOCK, Mixture
from data_pipeline.reader import Cursor, ShardReader, Share, mixed_batch
from dualmask.config import address

ROWS = (150, 70, 290)
FIRST = (0, 10_000, 20_000)  # row number that each source begins with
WEIGHTS = (3.0, 1.0, 2.0)
STEPS, BATCH = 40, 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("sources")
    return [
        write_folder(base / str(n), rows, first=first) for n, (rows, first) in enumerate(zip(ROWS, FIRST, strict=True))
    ]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


def mixed(folders: list[Path] | list[str], **limits: int) -> list[Source]:
    return [Source(folder, weight, **limits) for folder, weight in zip(folders, WEIGHTS, strict=False)]


Sequences = list[tuple[int, ...]]  # row number, length and key


def sequences(reader: ShardReader, steps: int) -> list[Sequences]:
    """Of each batch."""
    batches = list(islice(reader, steps))
    reader.close()
    return [
        [(row_number(row), int(length), int(key)) for row, length, key in zip(b.tokens, b.length, b.key, strict=True)]
        for b in batches
    ]


def joined(
    sources: list[Source], world: int, steps: int = STEPS, cursor: Cursor | None = None, ahead: int = 4
) -> list[Sequences]:
    """The global batches of ``world`` ranks, each of which makes ``ahead`` batches before they are asked for."""
    shares = [Share(BATCH // world, rank, world, seed=7) for rank in range(world)]
    readers = [ShardReader(sources, share, Crop(0.3), cursor=cursor, prefetch=ahead) for share in shares]
    ranks = [sequences(reader, steps) for reader in readers]
    return [[sequence for part in parts for sequence in part] for parts in zip(*ranks, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_and_resume_change_nothing(folders: list[Path], count: int) -> None:
    """At 50 random points, as 1, 2 or 4 ranks."""
    sources = mixed(folders[:count])
    whole = joined(sources, 1)
    for world, ahead in product((1, 2, 4), (0, 2)):
        assert joined(sources, world, ahead=ahead) == whole
    resumed_at_random_points(sources, whole, cursors_of(sources), seed=count)


def cursors_of(sources: list[Source]) -> list[Cursor]:
    """The cursor before each step, as a checkpoint holds it."""
    reader, cursors = ShardReader(sources, Share(BATCH, seed=7), Crop(0.3)), []
    for _ in range(STEPS):
        cursors.append(Cursor.from_dict(json.loads(json.dumps(reader.cursor.to_dict()))))
        next(reader)
    reader.close()
    return cursors


def resumed_at_random_points(
    sources: list[Source], whole: list[Sequences], cursors: list[Cursor], seed: int, points: int = 50
) -> None:
    """With any number of ranks and of batches ahead."""
    draw = np.random.default_rng(seed)
    for _ in range(points):
        step, world, ahead = int(draw.integers(0, STEPS)), int(draw.choice([1, 2, 4])), int(draw.choice([0, 2]))
        stop = min(step + 3, STEPS)
        assert joined(sources, world, stop - step, cursors[step], ahead) == whole[step:stop]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_source_has_its_share_and_each_sequence_comes_once_an_epoch(folders: list[Path], count: int) -> None:
    batches = sequences(ShardReader(mixed(folders[:count]), Share(100)), 100)  # a block of the mixture
    rows = [row for batch in batches for row, *_ in batch]
    of_source = [[row for row in rows if row // 10_000 == number] for number in range(count)]
    shares = np.array(WEIGHTS[:count]) / sum(WEIGHTS[:count])
    assert [len(part) for part in of_source] == pytest.approx((shares * BLOCK).tolist(), abs=1)
    for part, size in zip(of_source, ROWS, strict=False):
        epochs = [part[start : start + size] for start in range(0, len(part) - size, size)]
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    keys = [key for batch in batches for *_, key in batch]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("world", [1, 2])
def test_a_source_that_has_ended_leaves_its_positions_to_the_others(folders: list[Path], world: int) -> None:
    sources = [Source(folders[0], 3.0, epochs=1), Source(folders[1], 1.0), Source(folders[2], 2.0, epochs=1)]
    batches = joined(sources, world, 100)
    counts = Counter(row for batch in batches for row, *_ in batch)
    for number in (0, 2):
        assert [counts[FIRST[number] + row] for row in range(ROWS[number])] == [1] * ROWS[number]
    assert sum(counts[FIRST[1] + row] for row in range(ROWS[1])) == 800 - 440
    assert joined(sources, 3 - world, 100) == batches


def test_all_sources_have_ended(folders: list[Path]) -> None:
    assert len(sequences(ShardReader(mixed(folders, epochs=2), Share(50)), 1000)) == 2 * sum(ROWS) // 50


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=5),
    st.integers(0, 3 * BLOCK),
    st.integers(1, BLOCK),
    st.data(),
)
def test_the_mixture_never_takes_more_than_there_is(
    weights: list[float], start: int, count: int, data: st.DataObject
) -> None:
    mixture = Mixture(weights, seed=3)
    left = [data.draw(st.sampled_from([0, 1, count // 3, count, 2**62])) for _ in weights]
    chosen = mixture.draw(start, start + count, left)
    assert (chosen is None) == (sum(left) < count)
    if chosen is not None:
        assert (np.bincount(chosen, minlength=len(left)) <= np.array(left)).all()
    unlimited = mixture.draw(start, start + count, [2**62] * len(weights))
    part = mixture.draw(start + count // 2, start + count, [2**62] * len(weights))
    assert part is None or np.array_equal(part, unlimited[count // 2 :])


def test_a_bad_shard_of_one_source_is_left_out_of_it(folders: list[Path]) -> None:
    """In the middle of an epoch its sequences are replaced; the next epochs do without it, as the cursor says."""
    sources = mixed(folders)
    reader = ShardReader(sources, Share(BATCH))
    before = sequences(reader, 5)
    cursor = reader.cursor
    assert before
    without = [sources[0], Source(folders[1], WEIGHTS[1], exclude=["train-000001.tar"]), sources[2]]
    hurt = ShardReader(without, Share(BATCH), cursor=cursor)
    rows = [row for batch in sequences(hurt, 200) for row, *_ in batch]
    places = hurt.cursor.sources
    assert [place.quarantined for place in places] == [(), ("train-000001.tar",), ()]
    assert not {row - FIRST[1] for row in rows if row // 10_000 == 1} & set(range(40, 70))
    assert Cursor.from_dict(hurt.cursor.to_dict()) == hurt.cursor


def test_a_cursor_of_an_earlier_version_begins_the_next_epoch(folders: list[Path], caplog) -> None:
    cursor = Cursor.from_dict({"epoch": 3, "consumed": 40, "seed": 7, "quarantined": ["train-000001.tar"]})
    assert cursor == Cursor(seed=7, sources=(Place(epoch=4),))
    assert "the next epoch is begun" in caplog.text
    assert sequences(ShardReader(folders[0], Share(8, seed=7), cursor=cursor), 1)


def test_what_cannot_be_mixed_is_one_line(folders: list[Path], tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other")
    for key, value in {"tokenizer_digest": "1" * 64, "max_length": 8, "packing": "documents"}.items():
        Manifest.load(folders[0]).model_copy(update={key: value}).save(other)
        with pytest.raises(ManifestError, match=rf"other: {key}=.* differs from .* build one of them again") as error:
            ShardReader([Source(folders[0]), Source(other)], Share(8))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="weight 1e-06 of source 1 is less than"):
        ShardReader([Source(folders[0]), Source(folders[1], 1e-6)], Share(8))
    with pytest.raises(ValueError, match="2 data sources are not the 1"):
        ShardReader(mixed(folders[:2]), Share(8), cursor=Cursor())
    with pytest.raises(ManifestError, match="has 70 sequences, a global batch needs 75"):
        ShardReader([Source(folders[0]), Source(folders[1])], Share(150))


def test_dev_texts_come_from_all_sources_that_have_some(folders: list[Path], tmp_path: Path) -> None:
    dev = [write_folder(tmp_path / name, 50, split="dev", first=first) for name, first in [("a", 0), ("b", 500)]]
    sources = [Source(dev[0], 1.0), Source(folders[0], 5.0), Source(dev[1], 3.0)]
    rows = [row_number(row) for row in mixed_batch(sources, "dev", 20).tokens.numpy()]
    assert [sum(row < 500 for row in rows), sum(row >= 500 for row in rows)] == [5, 15]


# --- object stores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("faults", [0.0, 0.5])
def test_an_object_store_has_the_order_of_the_disk(
    folders: list[Path], count: int, faults: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: refused, cut, changed and slow answers. Resumed at 50 random points, from the cache of the first time,
    and with an empty cache."""
    with ExitStack() as servers:
        addresses = [servers.enter_context(serving(folder, faults, slow=0.2)) for folder in folders[:count]]
        local, far = mixed(folders[:count]), mixed(addresses)
        whole, cursors = joined(local, 1), cursors_of(local)
        for world, ahead in product((1, 2, 4), (0, 2)):
            assert joined(far, world, ahead=ahead) == whole
        resumed_at_random_points(far, whole, cursors, seed=count)
        fetched = [line.split()[1] for folder in folders[:count] for line in requests(folder, ".tar")]
        assert faults or len(fetched) == sum(len(list(folder.glob("*.tar"))) for folder in folders[:count])
        monkeypatch.setattr(address, "user_cache", lambda: tmp_path / "other cache")
        resumed_at_random_points(far, whole, cursors, seed=count, points=1)


def kept_bytes(cache: Path) -> int:
    """Of shards, at a moment at which no process changes them."""
    (folder,) = (cache / "data").iterdir()
    with (folder / ".room.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in folder.glob("*.tar"))


def test_the_cache_stays_within_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WINDOW", 40)  # else the whole must fit
    monkeypatch.setattr(store, "WINDOW", 40)
    folder = write_folder(tmp_path / "data", 800)
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    with serving(folder) as url:
        reader = ShardReader(Source(url, cache_bytes=6 * size), Share(8, seed=1))
        far, kept = [], []
        for batch in islice(reader, 150):
            far += [row_number(row) for row in batch.tokens]
            kept.append(kept_bytes(tmp_path / "cache"))
        reader.close()
    assert 0 < max(kept) <= 6 * size
    local = [row for batch in sequences(ShardReader(folder, Share(8, seed=1)), 150) for row, *_ in batch]
    assert far == local
    assert len(requests(folder, ".tar")) <= 2 * 20  # each shard about once an epoch: 1.5 epochs, and what was ahead


def test_a_cache_that_is_too_small_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    with serving(folder) as url, pytest.raises(ManifestError, match=r"data\.cache_gigabytes=1e-06 is less than"):
        ShardReader(Source(url, cache_bytes=1000), Share(8))


def test_a_shard_that_is_not_the_manifests_is_quarantined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "data", 160)
    content = bytearray((folder / "train-000001.tar").read_bytes())
    content[1000] ^= 1
    (folder / "train-000001.tar").write_bytes(content)
    (folder / "train-000002.tar").unlink()
    with serving(folder) as url:
        reader = ShardReader(Source(url, epochs=1), Share(8))
        rows = {row for batch in sequences(reader, 100) for row, *_ in batch}
    assert rows <= {*range(40), *range(120, 160)}
    assert reader.quarantined == 10
    assert "train-000001.tar is" in caplog.text
    assert "train-000002.tar is missing" in caplog.text
    assert len(requests(folder, "000001.tar")) == remote.WRONG_ATTEMPTS


def test_a_store_that_does_not_answer_ends_the_run_in_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    folder = write_folder(tmp_path / "data", 160)
    with serving(folder) as url:
        reader = ShardReader(Source(url), Share(8))
    with pytest.raises(ManifestError, match=r"cannot be fetched \(.*\): start again when the store answers$") as error:
        list(reader)
    assert "\n" not in str(error.value)
    reader.close()
    with pytest.raises(ManifestError, match="cannot be fetched"):
        ShardReader(Source(url), Share(8))


def test_addresses_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as url, pytest.raises(ManifestError, match=r"manifest\.json is missing"):
        ShardReader(Source(url), Share(8))
    with pytest.raises(ManifestError, match=r"nothing://here: Protocol not known"):
        ShardReader(Source("nothing://here"), Share(8))
