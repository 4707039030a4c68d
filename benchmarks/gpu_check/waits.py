"""How often the host waits for the device in a step, and where: what a step costs beside its rounds, and each round.

On CUDA torch itself says so (``torch.cuda.set_sync_debug_mode``). On the CPU nobody waits; counted are the operators
that would, which is less than all: copies to the host look like any others there.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_check.setting import Setting, row
from benchmarks.gpu_check.workload import Workload, cases, sized
from benchmarks.step_arms import Case
from dualmask.evaluation.statistics import Row

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")
MORE_ROUNDS = 3
SHOWN = 12  # places


def measure(setting: Setting) -> Iterator[list[Row]]:
    joint = sized(Case("joint", setting.size))
    more = replace(joint, rounds=MORE_ROUNDS, window=1)
    seen = {}
    for case in setting.in_time([joint, more, *(each for each in cases(setting) if each.stage != "joint")]):
        seen[case] = waits_of(case)
        yield [row("waits_a_step", seen[case].total(), stage=case.stage, rounds=case.rounds)]
        if case == more:
            rise = seen[more].total() - seen[joint].total()
            yield [row("waits_a_round", rise / (MORE_ROUNDS - 1), stage="joint")]
            yield [row("waits_at", n, place=place) for place, n in seen[joint].most_common(SHOWN)]


def waits_of(case: Case) -> Counter[str]:
    """By place: of one step under ZeRO-1."""
    with Workload(case) as workload:
        return (_of_device if torch.cuda.is_available() else _of_operators)(lambda: workload.step(9))


def _of_device(work: Callable[[], object]) -> Counter[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing" in str(each.message)]
    return Counter(f"{Path(each.filename).name}:{each.lineno}" for each in waits)


def _of_operators(work: Callable[[], object]) -> Counter[str]:
    with Waits() as seen:
        work()
    return seen.seen


class Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in WAITING or (name in ("index", "index_put", "index_put_") and _by_mask(args[1])):
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)
