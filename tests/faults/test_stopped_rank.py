"""SIGSTOP: the rank for which the others wait is named before the time-out; the run ends and can be started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import tiny
import warm
from test_stop_request import wait_until
from whole import Tally, Whole

pytestmark = pytest.mark.distributed

TIMEOUT = 20  # parallel.timeout_seconds


def has_done(output: Path, steps: int) -> bool:
    return tiny.steps_done(output) >= steps


@pytest.mark.parametrize("victims", [(0, 1), pytest.param((0, 1, 0, 1, 0, 1), marks=pytest.mark.slow)])
def test_named_in_time(victims: tuple[int, ...], pair: Whole, data: Path, tmp_path: Path, tally: Tally) -> None:
    """Either rank, including the one with the store; all runs at the same time, since the test mostly waits."""
    what = {"checkpoint": {"every_steps": 2}, "parallel": {"timeout_seconds": TIMEOUT}}
    configs = [tiny.write_config(tmp_path, data, f"stopped{number}", **what) for number in range(len(victims))]
    attempts, stopped = [], []
    for number, (config, victim) in enumerate(zip(configs, victims, strict=True)):
        attempt = warm.Ranks(2, config)
        begun = partial(has_done, config.with_suffix(""), 3 + 2 * number)
        wait_until(begun, partial(getattr, attempt, "alive"))
        attempt.signal(victim, signal.SIGSTOP)
        attempts.append(attempt)
        stopped.append(time.monotonic())
    try:
        for attempt, victim, began in zip(attempts, victims, stopped, strict=True):
            waiting = attempt.logs[1 - victim]
            sign = f"no sign of life from rank {victim} on {socket.gethostname()}"
            left = began + TIMEOUT + 10 - time.monotonic()
            wait_until(lambda log=waiting, sign=sign: sign in log.read_text(), lambda: True, seconds=left)
            attempt.processes[1 - victim].join(TIMEOUT)
            tally("7. SIGSTOP of a rank: named, and the run ends", attempt.processes[1 - victim].exitcode == 75)
            assert attempt.processes[1 - victim].exitcode == 75, waiting.read_text()
            assert "Traceback" not in waiting.read_text()
    finally:
        for attempt in attempts:
            attempt.kill()
    for config in configs:
        warm.train(2, config)
        assert pair.equals(config.with_suffix(""))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_under_the_real_launcher(data: Path, tmp_path: Path, tally: Tally) -> None:
    """It kills the stopped rank and exits with the code of the others; torchrun's agent keeps the store."""
    what = {"parallel": {"timeout_seconds": TIMEOUT}}
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node=2"]
    script = tiny.ROOT / "launcher" / "train.py"
    for name, command in {
        "deepspeed": tiny.command(2, script),
        "torchrun": [*torchrun, f"--master_port={tiny.free_port()}", str(script)],
    }.items():
        config = tiny.write_config(tmp_path, data, name, **what)
        log = tmp_path / f"{name}.log"
        with log.open("w") as stream:
            launcher = subprocess.Popen(
                [*command, "--config", str(config)], env=tiny.environment(), cwd=tiny.ROOT, stdout=stream, stderr=stream
            )
        wait_until(partial(has_done, tmp_path / name, 3), lambda launcher=launcher: launcher.poll() is None)
        ranks = [p for p in psutil.Process(launcher.pid).children(recursive=True) if p.environ().get("RANK") == "0"]
        os.kill(ranks[-1].pid, signal.SIGSTOP)
        assert launcher.wait(TIMEOUT + 60) == {"deepspeed": 75, "torchrun": 1}[name]
        tally("7. SIGSTOP of a rank: named, and the run ends", "no sign of life from rank 0" in log.read_text())
        assert "no sign of life from rank 0" in log.read_text()
        assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)


WAITS = """
import datetime, os, sys, time
import torch.distributed as dist
from dualmask.training.heartbeat import Heartbeat
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
heartbeat = Heartbeat(timeout_seconds=8)
time.sleep(14)  # nothing moves for longer than any bound, but every rank beats
dist.barrier()
heartbeat.close()
"""


@pytest.mark.slow
def test_who_beats_is_never_accused() -> None:
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(tiny.free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WAITS],
            env=tiny.environment() | rendezvous | {"RANK": str(rank)},
            cwd=tiny.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=200)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert not any("sign of life" in text for text in said)
