"""What tests do with the Slurm of ``cluster.sh``: commands, jobs, logs."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import tiny

SCRIPT = Path(__file__).with_name("cluster.sh")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@dataclass(frozen=True)
class Cluster:
    """``run`` is what a person types on the login host, in the root of the checkout."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: object, timeout: float = 60) -> str:
        done = self._script("exec", *map(str, command), timeout=timeout)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *command: object) -> str:
        """The number of the job."""
        log = self.folder / "job-%j.out"
        return self.run("sbatch", "--parsable", f"--output={log}", *command).strip()

    def log(self, job: str) -> str:
        path = self.folder / f"job-{job}.out"
        return path.read_text(errors="replace") if path.exists() else "no log"

    def job(self, job: str) -> dict[str, str]:
        """Slurm's own account: JobState, ExitCode, Restarts, …"""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, timeout: float = 600) -> dict[str, str]:
        """Until it has ended for good."""
        end = time.monotonic() + timeout
        while (account := self.job(job))["JobState"] not in ENDED:
            assert time.monotonic() < end, f"{account}\n{self.log(job)[-4000:]}"
            time.sleep(0.5)
        return account

    def up(self) -> None:
        done = self._script("up", timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        self._script("down", timeout=30)

    def _script(self, action: str, *rest: str, timeout: float) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(SCRIPT), action, str(self.folder), *rest]
        # files, not pipes: what a daemon inherits would keep a pipe open
        with (self.folder / "stdout").open("w+") as out, (self.folder / "stderr").open("w+") as err:
            done = subprocess.run(
                command, env=self.environment, cwd=tiny.ROOT, stdout=out, stderr=err, timeout=timeout, check=False
            )
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())
