"""The head and the columns of a data folder: both formats, nothing believed that is damaged, large ones at once."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shard_folders import VOCAB, as_format_1, write_folder

from data_pipeline.manifest import MANIFEST_FILE, MEMBERS_FILE, SHARDS_FILE, Manifest, ManifestError
from data_pipeline.tables import MEMBER_COLUMNS, SHARD_COLUMNS, ShardInfo, Shards


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    manifest = Manifest.load(write_folder(tmp_path, rows=150))
    assert manifest.vocab_size == VOCAB
    info = manifest.split("train")
    assert [shard.file for shard in info.shards] == [f"train-00000{number}.tar" for number in range(4)]
    assert [shard.rows for shard in info.shards] == info.shards.rows.tolist() == [40, 40, 40, 30]
    for number, shard in enumerate(info.shards):
        content = (tmp_path / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert shard.members == tuple(info.shards.member(number, member) for member in range(len(shard.members)))
        assert info.shards.find(shard.file) == number
    assert info.shards.find("dev-000000.tar") is info.shards.find("train-000009.tar") is None


def test_a_folder_of_the_earlier_format_is_the_same(tmp_path: Path) -> None:
    manifest = Manifest.load(write_folder(tmp_path))
    assert Manifest.load(as_format_1(tmp_path)) == manifest


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    manifest = Manifest.load(write_folder(tmp_path))
    empty = manifest.split("train").model_copy(update={"rows": 0, "shards": Shards.of([])})
    manifest.model_copy(update={"splits": {"train": empty, "dev": empty}}).save(tmp_path)
    assert not Manifest.load(tmp_path).has("train")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"train-000000.tar"', '"../train-000000.tar"'),
        ('"train-000000.tar"', '"dev-000000.tar"'),
        ('"format": 1', '"format": 3'),
        ('"bytes": ', '"bytes": -'),
        ('"source"', '"unknown"'),
        ('"rows": 150', '"rows": 151'),
        ("{", ""),
    ],
)
def test_damaged_manifest_of_format_1_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    file = as_format_1(write_folder(tmp_path)) / MANIFEST_FILE
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ManifestError, match=r"manifest\.json is damaged .*; run dualmask data build again$"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 2', '"format": 1'),
        ('"format": 2', '"format": "two"'),
        ('"shards": 4', '"shards": 5'),
        ('"rows": 150', '"rows": 149'),
        ('"members": "', '"members": "0'),
        ("}", ""),
    ],
)
def test_damaged_head_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    file = write_folder(tmp_path) / MANIFEST_FILE
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ManifestError, match=r"is damaged .*; run dualmask data build again$") as error:
        Manifest.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", [SHARDS_FILE, MEMBERS_FILE])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "objects"])
def test_damaged_table_is_one_line(tmp_path: Path, file: str, damage: str) -> None:
    path = write_folder(tmp_path) / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "missing":
        path.unlink()
    elif damage == "objects":  # and a head that vouches for them
        np.save(path, np.array([print], dtype=object), allow_pickle=True)
        head = json.loads((tmp_path / MANIFEST_FILE).read_text())
        head["tables"][file.removesuffix(".npy")] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / MANIFEST_FILE).write_text(json.dumps(head))
    else:
        path.write_bytes(content if damage == "flipped" else content[:-24])
    with pytest.raises(ManifestError, match=rf"{file} is damaged .*; run dualmask data build again$"):
        Manifest.load(tmp_path)


def test_tables_that_contradict_each_other(tmp_path: Path) -> None:
    shards = Manifest.load(write_folder(tmp_path)).split("train").shards
    with pytest.raises(ValueError, match="18 members, the shards have 19"):
        Shards("train", shards.columns, shards.members[:-1])
    changed = shards.members.copy()
    changed["rows"][0] += 1
    with pytest.raises(ValueError, match=r"train-000000\.tar: its members have 41 rows, not 40"):
        Shards("train", shards.columns, changed).member_rows(0)


def large_folder(folder: Path, shards: int, members: int, rows: int) -> None:
    """A head and tables as of ``shards`` shards; the shards themselves are not there."""
    write_folder(folder)
    columns, table = np.zeros(shards, SHARD_COLUMNS), np.zeros(shards * members, MEMBER_COLUMNS)
    columns["number"], columns["members"], columns["rows"] = np.arange(shards), members, members * rows
    table["rows"], table["bytes"], table["offset"] = rows, rows * 128 + 128, np.arange(len(table)) % members * 17408
    manifest = Manifest.load(folder)
    split = manifest.split("train").model_copy(
        update={"rows": shards * members * rows, "shards": Shards("train", columns, table)}
    )
    manifest.model_copy(update={"splits": {"train": split}}).save(folder)


OPEN = """
import re, sys, time
from data_pipeline.endless import EndlessSource, Source, Place
def peak():  # of the resident memory, since exec
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before, start = peak(), time.process_time()
source = EndlessSource(Source(sys.argv[1]), 0)
size = source.size(Place())
assert len(source.first_rows(Place(), 64).rows) == 64
print(size, time.process_time() - start, peak() - before)
"""


def test_a_gigarow_opens_at_once_and_takes_little_memory(tmp_path: Path) -> None:
    """8 million members of 128 rows: CPU seconds and growth of the resident memory until the first rows are found."""
    large_folder(tmp_path, shards=125_000, members=64, rows=128)
    done = subprocess.run([sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, check=True)
    size, seconds, memory = map(float, done.stdout.split())
    assert size == 1.024e9
    assert seconds < 2
    assert memory < 200e6


def test_names_that_are_no_numbers_of_one_split_are_refused() -> None:
    def info(file: str) -> ShardInfo:
        return ShardInfo(file=file, bytes=0, sha256="0" * 64, members=())

    with pytest.raises(ValueError, match=r"dev-000001\.tar stands where train-000001\.tar should"):
        Shards.of([info("train-000000.tar"), info("dev-000001.tar")])
    with pytest.raises(ValueError, match=r"train-0000001\.tar stands where train-000001\.tar should"):
        Shards.of([info("train-0000001.tar")])
