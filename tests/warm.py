"""Ranks that start quickly: forked from a process that has imported all libraries, then the real ``launcher/train.py``.

A rank that starts cold spends nearly all of a tiny run's time on imports, too much for tests with a hundred restarts.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import tiny
from moments import Moment

SCRIPT = tiny.ROOT / "launcher" / "train.py"
_processes = multiprocessing.get_context("forkserver")


class Ranks:
    """The ranks of one attempt (a run between two restarts), as torchrun or srun start them; each is a process."""

    def __init__(
        self,
        ranks: int,
        config: Path,
        *arguments: object,
        moment: Moment | None = None,
        before: Callable[[int], None] | None = None,
    ) -> None:
        """``moment``: at which a rank is killed; ``before``: called with its number in each rank, before its script."""
        _begin_server()
        self.logs = [config.with_name(f"{config.stem}-rank{rank}.log") for rank in range(ranks)]
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(tiny.free_port()), "WORLD_SIZE": str(ranks)}
        command = [str(SCRIPT), "--config", str(config), *map(str, arguments)]
        started: dict[int, BaseProcess] = {}
        # the watcher comes last: to kill another, it has to know its process
        for rank in sorted(range(ranks), key=lambda rank: moment is not None and rank == moment.watcher):
            own = rendezvous | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            prepare = partial(before, rank) if before else None
            if moment and rank == moment.watcher:
                prepare = partial(moment.arm, started[moment.victim].pid if moment.victim != rank else None)
            started[rank] = _processes.Process(target=_run, args=(command, own, str(self.logs[rank]), prepare))
            started[rank].start()
        self.processes = [started[rank] for rank in range(ranks)]

    @property
    def alive(self) -> bool:
        return all(process.exitcode is None for process in self.processes)

    def signal(self, rank: int, number: int) -> None:
        os.kill(self.processes[rank].pid or 0, number)

    def codes(self, timeout: float = 300) -> list[int | None]:
        """Exit codes after all have ended; None for a rank that hung and was killed."""
        for process in self.processes:
            process.join(timeout)
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def output(self) -> str:
        """stdout and stderr of all ranks."""
        return "".join(log.read_text(errors="replace") for log in self.logs if log.exists())


def train(ranks: int, config: Path, *arguments: object) -> str:
    """Runs an attempt that must succeed; returns its output."""
    attempt = Ranks(ranks, config, *arguments)
    codes = attempt.codes()
    assert codes == [0] * ranks, f"{codes}\n{attempt.output()[-3000:]}"
    return attempt.output()


def _begin_server() -> None:
    """Starts the process from which all ranks are forked, with the environment of a rank."""
    environment = dict(os.environ)
    try:
        os.environ.update(tiny.environment())
        _processes.set_forkserver_preload(["launcher.session"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(environment)


def _run(command: list[str], own: dict[str, str], log: str, prepare: Callable[[], None] | None) -> None:
    """The rank itself."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    os.environ.update(own)
    sys.argv = command
    sys.path.insert(0, str(SCRIPT.parent))  # as Python does for a script
    if prepare:
        prepare()
    runpy.run_path(command[0], run_name="__main__")
