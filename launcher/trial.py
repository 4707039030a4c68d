"""One trial of a sweep: a training process of its own, and what it says of itself. Knows nothing of Ray."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualmask.training.metrics import read_evals

LOOK_SECONDS = 0.3  # between two looks at what a trial has written
STOP_SECONDS = 300  # that a trial has for its checkpoint
TRIAL = "trial.json"  # the keys that were drawn, and the command that goes on with a trial that was stopped
SCRIPT = Path(__file__).resolve().parent / "train.py"


@dataclass(frozen=True)
class Job:
    """What all trials have in common."""

    config: str
    overrides: tuple[str, ...]
    keys: tuple[str, ...]  # that differ
    metric: str
    name: str
    out: str
    where: str  # folder that relative paths of the run are seen from
    threads: int  # of a trial on CPUs

    def trial(self, number: int) -> Path:
        return Path(self.out) / f"trial-{number:05d}"

    def command(self, number: int, keys: dict[str, Any]) -> list[str]:
        folder = self.trial(number)
        drawn = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
        changes = [*self.overrides, *drawn, f"name={self.name}-{folder.name}", f"output={json.dumps(str(folder))}"]
        return [sys.executable, str(SCRIPT), "--config", self.config, *(f"--set={change}" for change in changes)]

    def environment(self) -> dict[str, str]:
        """A process by itself, whatever Ray's worker has in its own."""
        foreign = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
        kept = {key: value for key, value in os.environ.items() if key not in foreign}
        return kept | {"OMP_NUM_THREADS": str(self.threads)}


class Trial:
    """A result for each evaluation. To be stopped means SIGTERM: the process writes a checkpoint and ends with 75."""

    def __init__(self, job: Job, number: int, keys: dict[str, Any]) -> None:
        self.job, self.seen = job, 0
        folder = job.trial(number)
        folder.mkdir(parents=True)
        self.record, self.log = folder / "metrics.jsonl", folder / "log.txt"
        command = job.command(number, keys)
        (folder / TRIAL).write_text(json.dumps({"keys": keys, "command": command}, indent=1), encoding="utf-8")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=job.where, env=job.environment(), stdout=log, stderr=subprocess.STDOUT
            )
        self.last: dict[str, Any] = {}

    def next(self) -> dict[str, Any]:
        """Waits for the next evaluation that holds the metric, or for the end. Raises RuntimeError with the reason."""
        while True:
            code = self.process.poll()
            records = list(read_evals(self.record))
            for record in records[self.seen :]:
                self.seen += 1
                if (value := record["eval"].get(self.job.metric)) is not None and math.isfinite(value):
                    self.last = {"step": record["step"] + 1, self.job.metric: value}
                    return self.last
            if code is not None:
                if code or not self.last:
                    said = self.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                    raise RuntimeError(f"{self.record.parent.name} ended with code {code}: {said[-1]}")
                return {**self.last, "done": True}
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def trial_row(folder: Path, metric: str, last_stage: str, higher: bool) -> dict[str, Any]:
    """What became of a trial. value: its best figure in the last stage; figures of other stages are not comparable."""
    records = list(read_evals(folder / "metrics.jsonl"))
    figures = [record["eval"].get(metric) for record in records if record["stage"] == last_stage]
    known = [figure for figure in figures if figure is not None]
    try:
        status = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError):
        status = "failed"
    return {
        "trial": folder.name,
        "keys": json.loads((folder / TRIAL).read_text(encoding="utf-8"))["keys"],
        "value": (max if higher else min)(known) if known else None,
        "steps": records[-1]["step"] + 1 if records else 0,
        "status": {"preempted": "stopped", "running": "failed"}.get(status, status),
        "output": str(folder),
    }
