"""A sealed folder: whatever happens to a byte of it is seen, and named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dualmask.core import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "sealed" / "shards"
    inner.mkdir(parents=True)
    draw = random.Random(1)
    for number in range(4):
        (inner / f"{number}.pt").write_bytes(draw.randbytes(300 + number))
    (tmp_path / "sealed" / "empty").touch()
    manifest.seal(tmp_path / "sealed")
    assert manifest.problem(tmp_path / "sealed") is None
    return tmp_path / "sealed"


def test_every_damage_is_seen(folder: Path) -> None:
    """Bits flipped and files cut at 400 drawn places; what passes must be what was written."""
    draw = random.Random(2)
    files = [folder / name for name in manifest.files_of(folder) if (folder / name).stat().st_size]
    for _ in range(400):
        file = draw.choice([*files, folder / manifest.NAME])
        whole = file.read_bytes()
        content = bytearray(whole)
        if draw.random() < 0.5:
            del content[draw.randrange(len(content)) :]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        trouble = manifest.problem(folder)
        if file.name != manifest.NAME:
            assert trouble is not None
            assert file.name in trouble
        elif trouble is not None:  # some bytes of the manifest mean nothing, such as its spaces
            assert "\n" not in trouble
        file.write_bytes(whole)
    assert manifest.problem(folder) is None


def test_missing_foreign_and_unfinished(folder: Path) -> None:
    (folder / "shards" / "9.pt").touch()
    assert manifest.problem(folder) == "shards/9.pt is foreign"
    (folder / "shards" / "9.pt").unlink()
    (folder / "empty").unlink()
    assert manifest.problem(folder) == "empty is missing"
    (folder / manifest.NAME).unlink()
    assert "never finished" in str(manifest.problem(folder))


def test_shared_reading_misses_nothing(folder: Path) -> None:
    damaged = folder / "shards" / "2.pt"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    found = [manifest.problem(folder, part, 3) for part in range(3)]
    assert sum(trouble is not None for trouble in found) == 1


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    manifest.write_file(file, "old")
    manifest.write_file(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
