"""Where the time of a step goes, by kind of work: torch's profiler, its operators summed up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from benchmarks.runs import random_batch
from benchmarks.step_arms import Case, engine
from dualmask.core.batch import Batch

WARM_UP, STEPS = 2, 3
REST = "elementwise and other operators"
PYTHON = "Python, autograd and hooks"
KINDS: dict[str, tuple[str, ...]] = {  # beginnings of names
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product",),
    "activation": ("aten::gelu",),
    "normalisation": ("aten::native_layer_norm",),
    "softmax and loss": ("aten::_log_softmax", "aten::_softmax", "aten::exp_", "aten::scatter_add_", "aten::gather"),
    "optimizer": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
    "communication": ("c10d::", "nccl"),
    "copies": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::cat", "aten::index", "aten::embedding"),
    REST: ("aten::",),
}


@dataclass(frozen=True)
class Spent:
    milliseconds: float  # a step
    calls: float
    dearest: str  # operator of this kind


def profile(case: Case, zero: int = 1) -> dict[str, Spent]:
    """Of steps of our engine. On CUDA the device's time, in which Python has no share."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    torch.set_num_threads(1)
    profiler = torch_profile(activities=activities)

    def batches() -> Iterator[Batch]:
        for step in range(WARM_UP):
            yield random_batch(case.size, step)
        with profiler:
            for step in range(STEPS):
                yield random_batch(case.size, step)

    engine(case, batches(), zero=zero)
    time = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = profiler.key_averages()
    return by_kind({event.key: (getattr(event, time) / 1000 / STEPS, event.count / STEPS) for event in events})


def kind_of(name: str) -> str:
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(beginnings)), PYTHON)


def by_kind(events: Mapping[str, tuple[float, float]]) -> dict[str, Spent]:
    """From (milliseconds, calls) of each operator; the dearest kind first."""
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for name, (milliseconds, calls) in events.items():
        groups.setdefault(kind_of(name), []).append((milliseconds, calls, name))
    spent = {
        kind: Spent(sum(e[0] for e in group), sum(e[1] for e in group), max(group)[2]) for kind, group in groups.items()
    }
    return dict(sorted(spent.items(), key=lambda item: -item[1].milliseconds))


def show(title: str, kinds: Mapping[str, Spent]) -> None:
    table = Table("kind of work", "share", "ms a step", "calls", "dearest", title=title)
    total = sum(spent.milliseconds for spent in kinds.values())
    for kind, spent in kinds.items():
        share = f"{spent.milliseconds / total:.1%}"
        table.add_row(kind, share, f"{spent.milliseconds:.2f}", f"{spent.calls:.0f}", spent.dearest)
    Console(width=110).print(table)
