"""Bytes that torch gave out in a step against those that the planner foresaw: eight shapes of ``plan_memory``.

On the CPU nothing is demanded of them: tests/distributed/test_plan_memory.py does that. On a card shapes are larger, so
that what CUDA's libraries take for themselves does not decide, and several run at once: each counts its own bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace

import torch

from benchmarks.gpu_check.setting import Setting, row, wrong
from benchmarks.memory_of_ranks import Seen
from benchmarks.plan_memory import ALLOWED, SHAPES, Shape, play, rows
from dualmask.evaluation.statistics import Row

NAMES = (
    "filler",
    "joint, L 4 W 1",
    "joint, L 4 W 4, checkpointing",
    "autoregressive",
    "filler, bf16",
    "picker, frozen filler",
    "span, own teacher",
    "filler, mostly weights",
)
FEW, SMALLER = ("autoregressive", "filler"), {"max_length": 96}
AT_ONCE = 6
LARGER = {"hidden": 8, "heads": 4, "max_length": 4}
DEFAULT = {"hidden": 128, "heads": 4, "max_length": 128}
VOCABULARY = 32768
JUDGED = "total"


def measure(setting: Setting) -> Iterator[list[Row]]:
    if setting.tiny:  # one process plays them all
        shapes = {name: replace(SHAPES[name], model=SHAPES[name].model | SMALLER) for name in FEW}
        for name, seen in play(shapes, timeout=setting.seconds):
            yield list(judged(name, shapes[name], seen))
        return
    shapes = {name: larger(SHAPES[name]) for name in NAMES}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_alone, name, shape, setting.seconds): name for name, shape in shapes.items()}
        for ended in as_completed(running):
            yield list(_result(ended, running[ended], shapes))


def larger(shape: Shape) -> Shape:
    grown = {key: shape.model.get(key, DEFAULT[key]) * times for key, times in LARGER.items()}
    return replace(shape, model=shape.model | grown, vocab_size=VOCABULARY)


def judged(name: str, shape: Shape, seen: Seen) -> Iterator[Row]:
    for each in rows(name, shape, seen):
        ratio, is_judged = each["value"], each["kind"] == JUDGED and torch.cuda.is_available()
        bytes_ = {"planned": round(each["predicted"]), "measured": each["measured"]}
        verdict = abs(ratio - 1) <= ALLOWED if is_judged else None
        yield row("planned_over_measured", ratio, ok=verdict, shape=name, kind=each["kind"], **bytes_)
    if "reserved" in seen:
        yield row("reserved_bytes", seen["reserved"], shape=name)


def _alone(name: str, shape: Shape, seconds: float) -> Seen:
    return dict(play({name: shape}, timeout=seconds))[name]


def _result(ended: Future[Seen], name: str, shapes: dict[str, Shape]) -> Iterator[Row]:
    try:
        yield from judged(name, shapes[name], ended.result())
    except RuntimeError as error:
        yield wrong(name, error)
