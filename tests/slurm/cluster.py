"""The interface of tests to the Slurm of ``cluster.sh``: commands, jobs, logs, and timed faults."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny

SCRIPT = Path(__file__).with_name("cluster.sh")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
RANK = "[l]auncher/train.py"  # a pattern that does not find the shell which looks for it


@dataclass(frozen=True)
class Cluster:
    """``run`` executes a command on the login host, in the root of the checkout."""

    folder: Path
    environment: dict[str, str]
    resumed: list[dict[str, Any]] = field(default_factory=list)  # rows of the result file

    def run(self, *command: object, timeout: float = 60) -> str:
        return self._script("exec", *command, timeout=timeout)

    def submit(self, *command: object) -> str:
        """The number of the job; its log is ``log``."""
        return self.run("sbatch", "--parsable", f"--output={self.folder}/job-%A.out", *command).strip()

    def log(self, job: str) -> str:
        path = self.folder / f"job-{job}.out"
        return path.read_text(errors="replace") if path.exists() else "no log"

    def job(self, job: str) -> dict[str, str]:
        """Slurm's description of the job: JobState, ExitCode, Restarts, …"""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, timeout: float = 600) -> dict[str, str]:
        """Waits until the job has ended for good."""
        end = time.monotonic() + timeout
        while (account := self.job(job))["JobState"] not in ENDED:
            assert time.monotonic() < end, f"{account}\n{self.log(job)[-6000:]}"
            time.sleep(0.5)
        return account

    def until(self, condition: Callable[[], bool], job: str, timeout: float = 600) -> None:
        """Fails after ``timeout`` seconds, or soon after the job has ended (a requeued one may seem to, briefly)."""
        end = time.monotonic() + timeout
        seconds_ended = 0
        while seconds_ended < 3 and time.monotonic() < end:
            seconds_ended = seconds_ended + 1 if self.job(job)["JobState"] in ENDED else 0
            for _ in range(20):
                if condition():
                    return
                time.sleep(0.05)
        raise AssertionError(f"{self.job(job)}\n{self.log(job)[-6000:]}")

    def at(self, node: str, *command: object, timeout: float = 60) -> str:
        """Executes a command on that node."""
        return self._script("at", node, *command, timeout=timeout)

    def signal(self, name: str, node: str, pattern: str = RANK) -> None:
        """To the first process of the node whose command line matches."""
        self.at(node, "bash", "-c", f"kill -{name} $(pgrep -f '{pattern}' | head -n 1)")

    def power_off(self, node: str) -> None:
        self._script("off", node)

    def power_on(self, node: str) -> None:
        self._script("on", node)

    def nodes(self, job: str, restart: int) -> list[str]:
        """The nodes of the job after its ``restart``-th restart, first that of rank 0."""
        line = re.search(rf"slurm: restart {restart} on (\S+),", self.log(job))
        assert line, self.log(job)
        return self.run("scontrol", "show", "hostnames", line[1]).split()

    def resumes(self, fault: str, job: str, output: Path, restart: int, disturb: Callable[[], object]) -> None:
        """Disturbs the job; waits for the first step recorded after ``restart``, and records the seconds until then."""
        began = time.monotonic()
        disturb()
        self.until(lambda: f"slurm: restart {restart} on" in self.log(job), job)
        size = _size(output)

        def grew() -> bool:
            nonlocal size  # it first shrinks to its size at the time of the checkpoint
            before, size = size, _size(output)
            return size > before

        self.until(grew, job)
        self.resumed.append({"metric": "seconds_to_resume", "fault": fault, "value": time.monotonic() - began, "n": 1})

    def up(self) -> None:
        self._script("up", timeout=150)

    def down(self) -> None:
        self._script("down", timeout=30)

    def _script(self, action: str, *rest: object, timeout: float = 60) -> str:
        command = ["bash", str(SCRIPT), action, str(self.folder), *map(str, rest)]
        # files, not pipes: what a daemon inherits would keep a pipe open
        with (self.folder / "stdout").open("w+") as out, (self.folder / "stderr").open("w+") as err:
            done = subprocess.run(
                command, env=self.environment, cwd=tiny.ROOT, stdout=out, stderr=err, timeout=timeout, check=False
            )
            out.seek(0), err.seek(0)
            printed = out.read()
            assert done.returncode == 0, f"{command}: {printed}{err.read()}"
            return printed


def _size(output: Path) -> int:
    return (output / "metrics.jsonl").stat().st_size
