"""The record of a run: one JSON line a step, in ``OUTPUT/metrics.jsonl``. Knows neither torch nor a clock."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dualmask.core import manifest
from dualmask.families.task import Alarm


@dataclass(frozen=True)
class StepRecord:
    step: int  # over all stages, from 0
    step_in_stage: int
    stage_index: int
    stage: str
    losses: dict[str, float]
    lr: float
    grad_norm: float
    taken: bool  # False: not finite, skipped by all ranks
    tokens: int  # of the global batch
    seconds: float  # from batch to batch
    data_wait: float  # share of ``seconds`` spent waiting for the batch
    keys: str  # checksum of rank 0's sequence keys: the order of the data
    alarms: tuple[Alarm, ...] = ()  # raised by this step

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def line(self) -> str:
        """JSON; a figure that is not finite becomes null."""
        record = {
            "step": self.step,
            "stage": self.stage,
            "losses": {name: _finite(value) for name, value in self.losses.items()},
            "lr": self.lr,
            "grad_norm": _finite(self.grad_norm),
            "taken": self.taken,
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "data_wait": round(self.data_wait, 4),
            "keys": self.keys,
            "alarms": [alarm.name for alarm in self.alarms],
        }
        return json.dumps(record)


class Observer(Protocol):
    """Watches a run from global rank 0; whatever it does, it neither changes nor stops the training."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        """``texts``: file name → content, made by the run's sampler."""

    def close(self, status: str) -> None:
        """``complete``, ``preempted`` or ``failed``."""


class MetricsFile:
    """Appends to the record; what lies behind ``first_step`` belongs to a start that was cut off, and is dropped."""

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [line for line, record in read_lines(path) if record["step"] < first_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_file(path, "".join(f"{line}\n" for line in kept))
        self._path, self._stream = path, path.open("a", encoding="utf-8")

    def on_step(self, record: StepRecord) -> None:
        with manifest.naming(self._path):
            self._stream.write(record.line() + "\n")
            self._stream.flush()

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        with manifest.naming(self._path):
            self._stream.close()


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, parsed line) of a record; a line that a crash cut short is left out. Nothing if there is no file."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield line, json.loads(line)
        except ValueError:
            continue


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
