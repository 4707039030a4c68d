"""A profile of joint steps: how long the device idles, its dearest kernels, and a trace to look at."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import profile

from benchmarks.gpu_check.setting import Setting, row
from benchmarks.gpu_check.workload import Workload, sized
from benchmarks.step_arms import Case
from dualmask.evaluation.statistics import Row
from dualmask.training.profile import covered, device_work, host_operators, profiler, top_operations

ROUNDS, SECONDS, MOST_STEPS = 2, 3.0, 8
SHOWN = 15  # kernels
MOST_BYTES = 10 * 2**20
ESSENTIAL = ("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime")  # categories of a trace's events


def measure(setting: Setting) -> Iterator[list[Row]]:
    case = replace(sized(Case("joint", setting.size)), rounds=ROUNDS, window=1)
    with Workload(case) as workload:
        began = time.perf_counter()
        workload.step(8)
        steps = min(max(int(SECONDS / (time.perf_counter() - began)), 1), 1 if setting.tiny else MOST_STEPS)
        with profiler() as profiled:
            for number in range(steps):
                workload.step(9 + number)
            if setting.cuda:
                torch.cuda.synchronize()
        yield list(shares(profiled, steps))
        (setting.out / "timeline.txt").write_text(top_operations(profiled), encoding="utf-8")
        with profiler() as single:  # of one step: it has to be small
            workload.step(99)
    path = setting.out / "timeline.trace.json.gz"
    write_trace(single, path)
    yield [row("trace_bytes", path.stat().st_size, ok=path.stat().st_size <= MOST_BYTES, file=path.name)]


def shares(profiled: profile, steps: int) -> Iterator[Row]:
    """On the CPU operators stand in for the device's work: what is not covered is Python."""
    where = "device" if torch.cuda.is_available() else "operators"
    work = device_work(profiled) if torch.cuda.is_available() else host_operators(profiled)
    whole = max(end for _, _, end in work) - min(begin for _, begin, _ in work)
    yield row("milliseconds_a_step", whole / steps / 1e6, stage="joint", rounds=ROUNDS)
    yield row("idle_share", 1 - covered(work) / whole, of=where)
    if torch.cuda.is_available():
        spent: Counter[str] = Counter()
        for name, begin, end in work:
            spent[name] += end - begin
        for name, nanoseconds in spent.most_common(SHOWN):
            yield row("kernel_share", nanoseconds / whole, kernel=name[:80])


def write_trace(profiled: profile, path: Path) -> None:
    """Gzipped; without the host's operators if it would be larger than ``MOST_BYTES``."""
    profiled.export_chrome_trace(str(path))
    if path.stat().st_size <= MOST_BYTES:
        return
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        trace = json.load(stream)
    trace["traceEvents"] = [e for e in trace["traceEvents"] if e.get("ph") == "M" or e.get("cat") in ESSENTIAL]
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(trace, stream)
