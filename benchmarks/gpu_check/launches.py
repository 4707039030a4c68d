"""Kernels of a step, and the host's time for a micro-batch on which the device has next to nothing to do.

That time is the floor of a micro-batch: no card is faster than its host can launch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_check.setting import Setting, row, wrong
from benchmarks.gpu_check.workload import Workload, cases
from benchmarks.step_arms import Case
from benchmarks.timing import median_row
from dualmask.evaluation.statistics import Row
from dualmask.training.profile import device_work, profiler

REPEATS = 5
LENGTH = 32  # tokens of the one text


def measure(setting: Setting) -> Iterator[list[Row]]:
    for case in setting.in_time(cases(setting)):
        light = replace(case, size=replace(case.size, length=LENGTH, sequences=1))
        try:
            yield list(_of_case(case.stage, light))
        except RuntimeError as error:
            yield [wrong(case.stage, error)]


def _of_case(stage: str, case: Case) -> Iterator[Row]:
    with Workload(case) as workload:
        yield median_row("host_milliseconds_a_micro_batch", host_milliseconds(workload), stage=stage)
        with Operators() as operators:
            workload.step(9)
        yield row("operators_a_step", operators.number, stage=stage)
        if torch.cuda.is_available():
            with profiler() as profiled:
                workload.step(10)
                torch.cuda.synchronize()
            names = [name for name, _, _ in device_work(profiled)]
            copies = sum(name.startswith(("Memcpy", "Memset")) for name in names)
            yield row("kernels_a_step", len(names) - copies, stage=stage)
            yield row("copies_and_fills_a_step", copies, stage=stage)


def host_milliseconds(workload: Workload) -> list[float]:
    """Of forward and backward, until the host has launched them all."""
    times = []
    for number in range(REPEATS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        workload.passes(number)
        times.append(1000 * (time.perf_counter() - began))
        workload.finish()
    return times


class Operators(TorchDispatchMode):
    """Counts the operators that compute something: views and queries launch nothing. An estimate of the kernels that
    a CPU can give as well."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "aten" and not function.is_view:
            self.number += 1
        return function(*args, **(kwargs or {}))
