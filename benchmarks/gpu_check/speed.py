"""Milliseconds of a step, model FLOP/s over the card's peak (MFU) and over its own matrix rate, beside Hugging Face.

Arms follow one another, each in a process of its own with the card to itself: ours (engine, ZeRO-1), the other one
(BERT or GPT-2 of equal size where there is one, else a plain loop without DeepSpeed), ours again. ``drift`` is the
second time of ours over the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from benchmarks.gpu_check import card
from benchmarks.gpu_check.setting import Setting, row, wrong
from benchmarks.gpu_check.workload import sized
from benchmarks.step_arms import HAVE_COUNTERPART, STAGES, Case, arm, can_compile, engine, hugging_face, plain
from benchmarks.timing import Arm, median_row, peak_rate, take_turns
from dualmask.evaluation.statistics import Row
from launcher.planner.memory import memory

ZERO = 1
REPEATS, MOST_SECONDS = 10, 4.0  # of an arm
USABLE = 0.75  # share of the card's memory that a step may be planned to fill


@dataclass(frozen=True)
class Named:
    size: str
    case: Case

    def __str__(self) -> str:
        return f"{self.case.stage} {self.size}{' compiled' if self.case.compiled else ''}"


def measure(setting: Setting) -> Iterator[list[Row]]:
    rate = statistics.median(card.matrix_rates(setting))
    if setting.cuda:
        torch.cuda.empty_cache()  # the arms are other processes
    yield [row("matrix_rate", rate, dtype="bfloat16")]
    timed = [Named(name, Case(stage, size)) for name, size in setting.sizes.items() for stage in STAGES]
    if can_compile() and setting.cuda:
        timed += [Named(named.size, replace(named.case, compiled=True)) for named in timed]
    elif not can_compile():
        yield [row("compile_switch", 0, reason="this version has none")]
    for number, named in enumerate(setting.in_time(timed)):
        alone = named.case.compiled or (setting.tiny and number)
        order = ("ours",) if alone else ("ours", "other", "ours")
        yield list(_of_case(named.size, fitted(named.case, setting), order, rate))


def fitted(case: Case, setting: Setting) -> Case:
    """With as many texts as the card is planned to hold."""
    case = sized(case)
    while setting.cuda and case.size.sequences > 1:
        run = case.run(ZERO)
        if memory(run, run.stages[0], case.size.vocabulary, 1).total < USABLE * torch.cuda.mem_get_info()[1]:
            break
        case = replace(case, size=replace(case.size, sequences=case.size.sequences // 2))
    return case


def _of_case(size: str, case: Case, order: tuple[str, ...], rate: float) -> Iterator[Row]:
    where: Row = {"stage": case.stage, "size": size} | ({"compiled": 1} if case.compiled else {})
    other = "hf" if case.stage in HAVE_COUNTERPART and find_spec("transformers") else "plain"
    arms: dict[str, Arm] = {
        "ours": arm(engine, case, zero=ZERO),
        "other": arm(hugging_face if other == "hf" else plain, case),
    }
    medians: dict[str, list[float]] = {}
    for name, times in take_turns(arms, order, REPEATS, most_seconds=MOST_SECONDS):
        title = other if name == "other" else name
        if isinstance(times, RuntimeError):
            yield wrong(f"{case.stage} {size} {title}", times)
            continue
        medians.setdefault(name, []).append(statistics.median(each.wall for each in times))
        milliseconds = [1000 * each.wall for each in times]
        yield median_row("milliseconds", milliseconds, **where, arm=title, texts=case.size.sequences)
    yield from _ratios(case, medians, rate, where | {"arm": "ours"}, other)


def _ratios(case: Case, medians: dict[str, list[float]], rate: float, where: Row, other: str) -> Iterator[Row]:
    if "ours" not in medians:
        return
    ours, operations = statistics.mean(medians["ours"]), case.cost().forward + case.cost().backward
    yield row("tokens_per_second", case.tokens / ours, **where)
    yield row("share_of_matrix_rate", operations / ours / rate, **where)
    if (peak := peak_rate()) is not None:
        yield row("mfu", operations / ours / peak, **where)
    if "other" in medians:
        yield row(f"speed_over_{other}", medians["other"][0] / ours, **where)
    if len(medians["ours"]) > 1:
        yield row("drift", medians["ours"][-1] / medians["ours"][0], **where)
