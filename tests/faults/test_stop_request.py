"""SIGTERM and SIGUSR1, to a rank or to a launcher: a checkpoint is written, the exit code is 75, no step is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny
import warm
from whole import Tally, Whole

pytestmark = pytest.mark.distributed

RARELY = {"every_steps": 100, "keep_last": 3}
SIGNALS = {signal.SIGTERM: "2. SIGTERM to a rank", signal.SIGUSR1: "2. SIGUSR1 to a rank"}


def wait_until(condition: Callable[[], bool], running: Callable[[], bool], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert running(), "it ended before"
        assert time.monotonic() < end
        time.sleep(0.002)


def steps_lost(output: Path) -> int:
    newest = max((output / "checkpoints").glob("step-*"), default=None)
    saved = int(newest.name.removeprefix("step-")) if newest else 0
    return tiny.steps_done(output) - saved


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("requests", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_rank_receives_the_request(requests: int, pair: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    draw = random.Random(requests)
    config = output = Path()
    for number in range(requests):
        if not config.name or tiny.steps_done(output) > tiny.STEPS - 5:  # the next run, or the first
            check_the_rest(pair, config)
            config = tiny.write_config(tmp_path, data, f"stopped{number}", checkpoint=RARELY)
            output = config.with_suffix("")
        attempt = warm.Ranks(2, config)
        goal = tiny.steps_done(output) + draw.randint(1, 3)
        wait_until(
            lambda goal=goal, output=output: tiny.steps_done(output) >= goal, lambda attempt=attempt: attempt.alive
        )
        signal_number = draw.choice(list(SIGNALS))
        attempt.signal(draw.randrange(2), signal_number)
        codes = attempt.codes()
        tally(SIGNALS[signal_number], codes == [75, 75] and steps_lost(output) == 0)
        assert codes == [75, 75], attempt.output()
        assert steps_lost(output) == 0
    check_the_rest(pair, config)


def check_the_rest(pair: Whole, config: Path) -> None:
    if config.name:
        warm.train(2, config)
        assert pair.equals(config.with_suffix(""))


def test_request_during_startup(data: Path, tmp_path: Path) -> None:
    """Signals are caught before libraries are imported; one step is made, so that short attempts make progress, too."""
    config = tiny.write_config(tmp_path, data, checkpoint=RARELY)
    attempt = warm.Ranks(2, config)
    wait_until(lambda: catches_sigterm(attempt.processes[0].pid or 0), lambda: attempt.alive)
    attempt.signal(0, signal.SIGTERM)
    assert attempt.codes() == [75, 75], attempt.output()
    assert tiny.steps_done(tmp_path / "tiny") == 1
    assert steps_lost(tmp_path / "tiny") == 0


def catches_sigterm(process: int) -> bool:
    """Whether the process has a handler for SIGTERM."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def launch(config: Path) -> tuple[subprocess.Popen[str], Callable[[], list[psutil.Process]]]:
    """The command ``deepspeed``, and a function that lists its ranks, which may outlive it."""
    script = tiny.ROOT / "launcher" / "train.py"
    command = tiny.command(2, script, "--config", config)
    log = config.with_suffix(".log").open("w")
    launcher = subprocess.Popen(command, env=tiny.environment(), cwd=tiny.ROOT, stdout=log, stderr=log, text=True)
    return launcher, lambda: [p for p in psutil.process_iter(["cmdline"]) if is_rank(p, script, config)]


def is_rank(process: psutil.Process, script: Path, config: Path) -> bool:
    words = process.info["cmdline"] or []
    return str(script) in words[2:3] and str(config) in words


@pytest.mark.timeout(1200)
def test_the_deepspeed_command_receives_the_request(pair: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    """It ends at SIGTERM without telling its ranks, which notice that it is gone."""
    config = tiny.write_config(tmp_path, data, checkpoint=RARELY)
    output = tmp_path / "tiny"
    launcher, ranks = launch(config)
    wait_until(lambda: tiny.steps_done(output) >= 3, lambda: launcher.poll() is None)
    launcher.terminate()
    launcher.wait(60)
    psutil.wait_procs(ranks(), timeout=120)
    tally("2. SIGTERM to the command deepspeed", not ranks() and steps_lost(output) == 0)
    assert not ranks()
    assert steps_lost(output) == 0
    check_the_rest(pair, config)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_launcher_of_a_node_receives_the_request(pair: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    """It forwards SIGTERM and waits. Later it loses a rank, and exits with a code that means: start again."""
    config = tiny.write_config(tmp_path, data, checkpoint=RARELY)
    output = tmp_path / "tiny"
    launcher, ranks = launch(config)
    wait_until(lambda: tiny.steps_done(output) >= 3, lambda: launcher.poll() is None)
    psutil.Process(ranks()[0].ppid()).terminate()
    assert launcher.wait(120) != 0
    tally("2. SIGTERM to a node's launcher", not ranks() and steps_lost(output) == 0)
    assert not ranks()
    assert steps_lost(output) == 0

    launcher, ranks = launch(config)
    before = tiny.steps_done(output)
    wait_until(lambda: tiny.steps_done(output) > before, lambda: launcher.poll() is None)
    ranks()[1].kill()
    assert launcher.wait(120) in (75, 256 - signal.SIGKILL)  # whichever it sees first
    assert not ranks()
    check_the_rest(pair, config)
    again = tiny.train(1, config)
    assert (again.returncode, again.stdout) == (0, f"{output}: already complete\n")
