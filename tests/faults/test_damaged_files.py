"""Checkpoint files truncated, bit-flipped, emptied, swapped, missing, foreign or misdescribed: named, never loaded."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from whole import Tally, Whole

from dualmask.core import manifest
from dualmask.training.checkpoint import Checkpoints

pytestmark = pytest.mark.distributed

Damage = Callable[[Path, Path, random.Random], None]  # of a checkpoint, beside one that stays good


def any_file(folder: Path, draw: random.Random) -> Path:
    return folder / draw.choice([*manifest.files_of(folder), manifest.NAME])


def rewrite(file: Path, content: bytes) -> None:
    """Replaces the file; hard links to the old content keep it."""
    assert not file.exists() or file.read_bytes() != content
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def truncated(folder: Path, good: Path, draw: random.Random) -> None:
    file = any_file(folder, draw)
    rewrite(file, file.read_bytes()[: draw.randrange(file.stat().st_size)])


def bit_flipped(folder: Path, good: Path, draw: random.Random) -> None:
    file = any_file(folder, draw)
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    rewrite(file, bytes(content))


def emptied(folder: Path, good: Path, draw: random.Random) -> None:
    rewrite(any_file(folder, draw), b"")


def removed(folder: Path, good: Path, draw: random.Random) -> None:
    any_file(folder, draw).unlink()


def swapped(folder: Path, good: Path, draw: random.Random) -> None:
    """With the file of the same name of another, undamaged checkpoint."""
    names = [
        name
        for name in [*manifest.files_of(folder), manifest.NAME]
        if (good / name).exists() and (good / name).read_bytes() != (folder / name).read_bytes()
    ]
    name = draw.choice(names)
    rewrite(folder / name, (good / name).read_bytes())


def foreign(folder: Path, good: Path, draw: random.Random) -> None:
    file = any_file(folder, draw)
    rewrite(file.with_name(f"{draw.choice(['x', '.', 'zz'])}{file.name}"), file.read_bytes())


def lied_about(folder: Path, good: Path, draw: random.Random) -> None:
    """The manifest is well-formed but wrong."""
    content = json.loads((folder / manifest.NAME).read_text())
    name = draw.choice(list(content["files"]))
    edits: list[Callable[[], object]] = [
        lambda: content["files"].pop(name),
        lambda: content["files"][name].update(bytes=content["files"][name]["bytes"] + 1),
        lambda: content["files"][name].update(sha256="0" * 64),
        lambda: content["files"].update({f"{name}.more": content["files"][name]}),
        lambda: content.update(format=99),
        lambda: content.update(files=[]),
        lambda: content.pop("files"),
    ]
    draw.choice(edits)()
    rewrite(folder / manifest.NAME, json.dumps(content).encode())


def garbled(folder: Path, good: Path, draw: random.Random) -> None:
    rewrite(folder / manifest.NAME, draw.choice([b"[]", b"null", b"{", b"\xff\xfe", b'{"files": {"a": 1}}']))


DAMAGES: list[Damage] = [truncated, bit_flipped, emptied, removed, swapped, foreign, lied_about, garbled]


@pytest.mark.parametrize("number", [200])
def test_no_silent_load(
    number: int, alone: Whole, tmp_path: Path, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    """One or two of three checkpoints are damaged: the newest of the others is chosen, the damaged ones are named."""
    draw = random.Random(5)
    for trial in range(number):
        copy = tmp_path / str(trial)
        shutil.copytree(alone.output / "checkpoints", copy / "checkpoints", copy_function=os.link)
        *_, good, second, newest = sorted((copy / "checkpoints").iterdir())
        spoilt = [newest] if draw.random() < 0.7 else [newest, second]
        damage = DAMAGES[trial % len(DAMAGES)]
        for folder in spoilt:
            damage(folder, good, draw)
        chosen = Checkpoints(copy, keep_last=3).newest()
        said = capsys.readouterr().err
        kept = chosen == (second if len(spoilt) == 1 else good) and manifest.problem(chosen) is None
        named = all(f"checkpoint {folder} is set aside: " in said for folder in spoilt)
        tally("3. checkpoint file damaged", kept and named)
        assert kept, f"trial {trial}, {damage.__name__}: {chosen}"
        assert named, said
        assert not any(folder.exists() for folder in spoilt)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "damage", [bit_flipped, *(pytest.param(d, marks=pytest.mark.slow) for d in DAMAGES if d is not bit_flipped)]
)
def test_the_run_goes_on(damage: Damage, alone: Whole, tmp_path: Path) -> None:
    """From the checkpoint before, to the same weights."""
    copy = alone.copy(tmp_path / "copy")
    good, second, newest = sorted((copy / "checkpoints").iterdir())
    for folder in (newest, second):
        damage(folder, good, random.Random(3))
    said = warm.train(1, alone.config, "--set", f"output={copy}")
    for folder in (newest, second):
        assert f"checkpoint {folder} is set aside" in said
        assert folder.with_name(f"{folder.name}.broken").is_dir()
    assert alone.equals(copy)
