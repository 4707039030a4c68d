"""The record of a run, in ``OUTPUT/metrics.jsonl``: one JSON line a step, and one an evaluation. Knows neither torch
nor a clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dualmask.core import manifest
from dualmask.curriculum import StepPlan
from dualmask.families.task import Alarm


@dataclass(frozen=True)
class Yardstick:
    """What the run's steps are planned to compute, and what its devices could."""

    operations: Callable[[StepPlan], float]  # of the step's global batch: forward and backward, nothing repeated
    peak: float | None  # operations a second of all devices together; None: not known, or CPUs

    def mfu(self, plan: StepPlan, seconds: float) -> float | None:
        """Model FLOP/s utilisation of a step that took so long."""
        return None if self.peak is None else self.operations(plan) / seconds / self.peak


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
    mfu: float | None = None  # model FLOP/s over the peak of all devices; None: not known

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
        if self.mfu is not None:
            record["mfu"] = float(f"{self.mfu:.4g}")
        return json.dumps(record)


@dataclass(frozen=True)
class EvalRecord:
    """What the dev part of the data says of the weights behind a step."""

    step: int  # behind which it was made
    stage_index: int
    stage: str
    figures: dict[str, float]  # dev_…
    metric: str  # the figure by which the best is chosen
    is_best: bool  # of the stage so far
    ends_stage: bool  # there has been no new best for too long
    seconds: float

    @property
    def value(self) -> float:
        return self.figures[self.metric]

    def line(self) -> str:
        """JSON; a figure that is not finite becomes null."""
        record = {
            "step": self.step,
            "stage": self.stage,
            "eval": {name: _finite(value) for name, value in self.figures.items()},
            "metric": self.metric,
            "best": self.is_best,
            "ends_stage": self.ends_stage,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(record)


class Observer(Protocol):
    """Watches a run from global rank 0; whatever it does, it neither changes nor stops the training."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_eval(self, record: EvalRecord) -> None: ...

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        """``texts``: file name → content, made by the run's sampler."""

    def close(self, status: str) -> None:
        """``complete``, ``preempted`` or ``failed``."""


class MetricsFile:
    """Appends to the record; what lies behind ``first_step`` belongs to a start that was cut off, and is dropped."""

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [line for line, record in _parsed(path) if record["step"] < first_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_file(path, "".join(f"{line}\n" for line in kept))
        self._path, self._stream = path, path.open("a", encoding="utf-8")

    def on_step(self, record: StepRecord) -> None:
        self._write(record.line())

    def on_eval(self, record: EvalRecord) -> None:
        self._write(record.line())

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        with manifest.naming(self._path):
            self._stream.close()

    def _write(self, line: str) -> None:
        with manifest.naming(self._path):
            self._stream.write(line + "\n")
            self._stream.flush()


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, parsed line) of each step of a record. Nothing if there is no file."""
    return (pair for pair in _parsed(path) if "eval" not in pair[1])


def read_evals(path: Path) -> Iterator[dict[str, Any]]:
    """The evaluations of a record, as ``EvalRecord.line`` wrote them. Nothing if there is no file."""
    return (record for _, record in _parsed(path) if "eval" in record)


def _parsed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, parsed line); a line that a crash cut short is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield line, json.loads(line)
        except ValueError:
            continue


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
