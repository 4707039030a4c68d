"""A run that is killed, at any moment, goes on as if nothing had happened: the record is equal to the last bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import test_parity_span
import tiny
import torch

from dualmask import manifest
from dualmask.export import export
from dualmask.inference.loading import load_span_fusion

pytestmark = pytest.mark.distributed

STEPS = 32  # of the configuration below
LONGER = {"stages.0.steps": 11, "stages.1.steps": 8, "stages.2.steps": 11}
SETTINGS = [f"--set={key}={value}" for key, value in LONGER.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, folder: Path) -> list[dict]:
    config = tiny.write_config(folder, data, "whole", checkpoint={"every_steps": 4, "keep_last": 3})
    assert tiny.finish(tiny.start_ranks(2, config, *SETTINGS)) == [0, 0]
    record = tiny.read_record(folder / "whole")
    assert [line["step"] for line in record] == list(range(STEPS))
    return record


def wait_until(condition: Callable[[], bool], ranks: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert all(rank.poll() is None for rank in ranks), ranks[0].communicate()[0][-3000:]
        assert time.monotonic() < end
        time.sleep(0.001)


def kill_once(config: Path, output: Path, draw: random.Random) -> None:
    """Starts the run, kills −9 one rank at a drawn moment, and sees the other die of it by itself."""
    before = tiny.steps_done(output)
    goal = before + draw.randint(1, 5)
    while_saving = draw.random() < 0.5
    ranks = tiny.start_ranks(2, config, *SETTINGS)
    try:
        # the record of a resumed run is first cut back to the checkpoint, then grows beyond the goal
        wait_until(lambda: tiny.steps_done(output) >= goal, ranks)
        if while_saving:
            wait_until((output / "checkpoints" / ".saving").exists, ranks)
        time.sleep(draw.random() * 0.05)
        draw.choice(ranks).kill()
    finally:
        codes = tiny.finish(ranks)
    assert 0 not in codes


def test_killed_at_random_moments(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    config = tiny.write_config(folder, data, "killed", checkpoint={"every_steps": 4, "keep_last": 3})
    draw = random.Random(11)
    for _ in range(4):
        kill_once(config, folder / "killed", draw)
    assert tiny.finish(tiny.start_ranks(2, config, *SETTINGS)) == [0, 0]
    assert tiny.read_record(folder / "killed") == uninterrupted
    same = "export/model.safetensors"
    assert manifest.digest(folder / "killed" / same) == manifest.digest(folder / "whole" / same)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(12))
def test_killed_many_times(seed: int, uninterrupted: list[dict], data: Path, folder: Path) -> None:
    config = tiny.write_config(folder, data, f"killed{seed}", checkpoint={"every_steps": 2, "keep_last": 2})
    draw = random.Random(100 + seed)
    for _ in range(4):
        kill_once(config, folder / f"killed{seed}", draw)
    assert tiny.finish(tiny.start_ranks(2, config, *SETTINGS)) == [0, 0]
    assert tiny.read_record(folder / f"killed{seed}") == uninterrupted


def test_asked_to_stop(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    """SIGTERM to one rank, SIGUSR1 to another later: exit code 75, no step lost, and on it goes."""
    config = tiny.write_config(folder, data, "asked", checkpoint={"every_steps": 100, "keep_last": 3})
    output = folder / "asked"
    for number, goal, victim in ((signal.SIGTERM, 3, 1), (signal.SIGUSR1, 12, 0)):
        ranks = tiny.start_ranks(2, config, *SETTINGS)
        wait_until(lambda goal=goal: tiny.steps_done(output) >= goal, ranks)
        os.kill(ranks[victim].pid, number)
        assert tiny.finish(ranks) == [75, 75]
        newest = max((output / "checkpoints").glob("step-*"))
        assert newest.name == f"step-{tiny.steps_done(output):08d}"
    assert tiny.finish(tiny.start_ranks(2, config, *SETTINGS)) == [0, 0]
    assert tiny.read_record(output) == uninterrupted


def test_killed_under_the_real_launcher(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    config = tiny.write_config(folder, data, "launched", checkpoint={"every_steps": 4, "keep_last": 3})
    script = tiny.ROOT / "launcher" / "train.py"
    command = tiny.command(2, script, "--config", config, *SETTINGS)
    launcher = subprocess.Popen(command, env=tiny.environment(), cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: tiny.steps_done(folder / "launched") >= 14, [launcher])
    ranks = [p for p in psutil.Process(launcher.pid).children(recursive=True) if str(script) in p.cmdline()[2:3]]
    assert len(ranks) == 2
    ranks[1].kill()
    assert launcher.wait(120) != 0
    assert all(not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE for rank in ranks)
    done = tiny.train(2, config, *SETTINGS, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert tiny.read_record(folder / "launched") == uninterrupted
    again = tiny.train(1, config, *SETTINGS)
    assert (again.returncode, again.stdout) == (0, f"{folder / 'launched'}: already complete\n")


def test_finished_run_of_another_configuration(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    """It is neither "already complete" nor silently trained further: the key that differs is named."""
    config = tiny.write_config(folder, data, "whole", checkpoint={"every_steps": 4, "keep_last": 3})
    codes = tiny.start_ranks(2, config, *SETTINGS, "--set", "seed=4")
    said = [rank.communicate(timeout=120)[0] for rank in codes]
    assert tiny.finish(codes) == [2, 2]
    assert "seed = 4 differs from 3" in said[0]
    assert "--resume never" in said[0]


def test_resume_from_a_path(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    """A checkpoint given by its path, of another run folder: the rest of the record is the same."""
    config = tiny.write_config(folder, data, "branch", checkpoint={"every_steps": 100})
    oldest = min((folder / "whole" / "checkpoints").glob("step-*"))
    assert tiny.finish(tiny.start_ranks(2, config, *SETTINGS, "--resume", oldest)) == [0, 0]
    done = int(oldest.name.removeprefix("step-"))
    assert tiny.read_record(folder / "branch") == uninterrupted[done:]


def test_in_the_middle_of_a_stage_with_a_teacher(data: Path, folder: Path) -> None:
    """SpanFusionLM under ZeRO-3: the teacher goes on from where it stood, too. Inference never sees it."""
    what = {"model": test_parity_span.MODEL, "stages": test_parity_span.STAGES, "checkpoint": {"every_steps": 2}}
    first, second = (tiny.write_config(folder, data, name, **what) for name in ("span", "span-again"))
    settings = [f"--set={test_parity_span.EMA}", "--set=checkpoint.keep_last=9"]
    assert tiny.finish(tiny.start_ranks(2, first, *settings)) == [0, 0]
    middle = folder / "span" / "checkpoints" / "step-00000004"
    assert tiny.finish(tiny.start_ranks(2, second, *settings, "--resume", middle)) == [0, 0]
    record = tiny.read_record(folder / "span")
    assert [line["stage"] for line in record[2:]] == ["span"] * 5
    assert tiny.read_record(folder / "span-again") == record[4:]
    same = "export/model.safetensors"
    assert manifest.digest(folder / "span" / same) == manifest.digest(folder / "span-again" / same)
    shutil.rmtree(folder / "span" / "export")
    export(folder / "span", folder / "exported")  # from the newest checkpoint
    loaded = load_span_fusion(folder / "exported", "cpu")
    finished = load_span_fusion(folder / "span-again", "cpu")
    for mine, theirs in zip(loaded.model.parameters(), finished.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
