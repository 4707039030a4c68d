"""torch's profiler over a few steps: a trace for a viewer, a table of the dearest operations, when the device had work.

Traces are opened in https://ui.perfetto.dev or chrome://tracing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dualmask.core import manifest
from dualmask.training.metrics import EvalRecord, StepRecord

TABLE_ROWS = 40


class ProfiledSteps:
    """An Observer that profiles ``steps`` of this rank, counted as in the record, and writes into ``folder``.

    What was done before ``first_step``, with which this process begins, is left out.
    """

    def __init__(self, steps: range, folder: Path, first_step: int = 0) -> None:
        self._steps, self._folder = range(max(steps.start, first_step), steps.stop), folder
        self._profiler: profile | None = None
        if not self._steps:
            _say(f"steps {steps.start} to {steps.stop - 1} were done before step {first_step}: nothing is profiled")
        self._begin_before(first_step)

    def on_step(self, record: StepRecord) -> None:
        if self._profiler is not None and record.step + 1 >= self._steps.stop:
            self._write(record.step)
        self._begin_before(record.step + 1)

    def on_eval(self, record: EvalRecord) -> None:
        pass

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        """Writes what there is if the run ends within the steps."""
        if self._profiler is not None:
            self._write(self._steps.stop - 1)

    def _begin_before(self, step: int) -> None:
        if self._profiler is None and step in self._steps:
            self._profiler = profiler()
            self._profiler.start()

    def _write(self, last: int) -> None:
        assert self._profiler is not None
        profiled, self._profiler = self._profiler, None
        profiled.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"steps-{self._steps.start}-{last}"
        trace, table = self._folder / f"{name}.trace.json.gz", self._folder / f"{name}.txt"
        with manifest.naming(self._folder):
            profiled.export_chrome_trace(str(trace))
            table.write_text(top_operations(profiled), encoding="utf-8")
        self._steps = range(0)
        _say(f"{trace} (for ui.perfetto.dev) and {table}")


def profiler() -> profile:
    """Of the host and, where there is one, the CUDA device; not begun."""
    activities = [ProfilerActivity.CPU]
    return profile(activities=[*activities, ProfilerActivity.CUDA] if torch.cuda.is_available() else activities)


def top_operations(profiled: profile, rows: int = TABLE_ROWS) -> str:
    """A table; the dearest first: on CUDA by the device's own time, else by the host's."""
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(profiled.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=70))


def device_work(profiled: profile) -> list[tuple[str, int, int]]:
    """(name, begin, end) in nanoseconds of each kernel, copy and fill on the CUDA device."""
    events = profiled.profiler.kineto_results.events()
    host = {event.name() for event in events if event.device_type() == torch.autograd.DeviceType.CPU}
    # a range that the host names has a shadow of the same name on the device, across all gaps
    return [_span(event) for event in events if event.name() not in host]


def host_operators(profiled: profile) -> list[tuple[str, int, int]]:
    """The same of operators on the host, which contain each other."""
    return [_span(e) for e in profiled.profiler.kineto_results.events() if e.name().startswith("aten::")]


def covered(spans: Iterable[tuple[str, int, int]]) -> int:
    """Nanoseconds in which at least one of the spans runs."""
    total, reached = 0, 0
    for _, begin, end in sorted(spans, key=lambda span: span[1]):
        total += max(end - max(begin, reached), 0)
        reached = max(reached, end)
    return total


def _span(event: Any) -> tuple[str, int, int]:
    return event.name(), event.start_ns(), event.start_ns() + event.duration_ns()


def _say(text: str) -> None:
    print(f"profile: {text}", file=sys.stderr, flush=True)
