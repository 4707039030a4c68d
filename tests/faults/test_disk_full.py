"""A full disk (a real one): a one-line error, earlier checkpoints stay intact, the run resumes once there is room."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import warm
from test_stop_request import wait_until
from whole import Tally, Whole

from dualmask.core import manifest

pytestmark = pytest.mark.distributed

MEBIBYTES = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of MEBIBYTES MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small file system has to be mounted: needs Linux and root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(folder)]
    done = subprocess.run(mounting, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_disk_full(times: int, alone: Whole, data: Path, disk: Path, tmp_path: Path, tally: Tally) -> None:
    """Full before an attempt writes its first byte, or within a checkpoint; stages with less to save may still fit."""
    output = disk / "run"
    config = tiny.write_config(tmp_path, data, output=str(output), checkpoint={"every_steps": 2, "keep_last": 2})
    attempt = warm.Ranks(1, config)
    wait_until(lambda: tiny.steps_done(output) >= 4, lambda: attempt.alive)
    attempt.signal(0, signal.SIGTERM)
    assert attempt.codes() == [75], attempt.output()
    good = sorted((output / "checkpoints").iterdir())
    size = sum((good[-1] / name).stat().st_size for name in manifest.files_of(good[-1]))
    shutil.copytree(output, tmp_path / "then")
    draw = random.Random(times)
    for room in [0, *(draw.randrange(size) for _ in range(times - 1))]:
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "then", output)
        with filled(disk, room):
            attempt = warm.Ranks(1, config)
            codes = attempt.codes()
        (line,) = [line for line in attempt.output().splitlines() if line.startswith("error: ")]
        left = sorted((output / "checkpoints").glob("step-*"))
        intact = left[-1] >= good[-1] and all(manifest.problem(folder) is None for folder in left)
        tally("4. disk full", codes == [1] and intact and "No space left" in line)
        assert codes == [1], attempt.output()
        assert "No space left" in line
        assert "Traceback" not in attempt.output()
        assert intact
    warm.train(1, config)
    assert alone.equals(output)


@contextmanager
def filled(disk: Path, room: int) -> Iterator[None]:
    """Fills the disk except for ``room`` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as stream:
        stream.write(bytes(max(shutil.disk_usage(disk).free - room, 0)))
    try:
        yield
    finally:
        ballast.unlink()
