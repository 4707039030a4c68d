"""How fast a training step is: ``python -m benchmarks.train_step --json out.json``.

For each stage and size the steps of the arms are interleaved (on CUDA the arms follow one another, each with the card
to itself, and the last is the first once more), each arm in a process of its own with one thread: the
matrix products of a step alone (the floor), a plain PyTorch loop, our engine under ZeRO 0, 1 and 3, the whole trainer,
and BERT or GPT-2 of Hugging Face of equal size and tokens. BERT makes logits of every position, stage `filler` only of
the holes. Ratios are of steps of the same repeat; ``clock`` cpu is the processor time of the process, which others'
load changes little. On CUDA time is taken from events of the device, and its share of the peak (``mfu``, ``hfu``) is
reported too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import operators
from benchmarks.runs import SIZES, Size, size_name
from benchmarks.step_arms import (
    HAVE_COUNTERPART,
    STAGES,
    Case,
    arm,
    engine,
    hugging_face,
    matmuls,
    need_transformers,
    plain,
    trainer,
)
from benchmarks.timing import (
    Arm,
    Seconds,
    interleave_steps,
    load,
    median_row,
    peak_rate,
    print_rows,
    ratios,
    take_turns,
)
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from launcher.planner.parameters import learning, parameters

Times = Mapping[str, Sequence[Seconds]]
ZERO = (0, 1, 3)
TRAINER_ZERO = 1


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    cases = [
        Case(stage, SIZES[size], checkpointing=arguments.checkpointing)
        for size in arguments.sizes
        for stage in arguments.stages
    ]
    try:
        if arguments.profile:
            for case in cases:
                operators.show(f"{case.stage} {size_name(case.size)}", operators.profile(case))
            return 0
        if arguments.json is None:
            raise ValueError("--json is missing: name the result file")
        if "hf" not in arguments.without:
            need_transformers()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measurements = [partial(_of_case, case, arguments.repeats, hf="hf" not in arguments.without) for case in cases]
    if "rounds" not in arguments.without:
        measurements.append(partial(rounds_rows, SIZES[arguments.sizes[0]], arguments.repeats))
    about: dict[str, Any] = {"sizes": {name: asdict(SIZES[name]) for name in arguments.sizes}, "load_a_core": [load()]}
    result: list[Row] = []
    for measure in measurements:
        print_rows(new := measure())
        result += new
        about["load_a_core"].append(load())
        write(arguments.json, "train_step", result, **about)  # kept if one of the next is cut off
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_step", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["lm", "filler"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "small"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without", nargs="+", choices=["hf", "rounds"], default=[], help="leave out these arms")
    parser.add_argument("--checkpointing", action="store_true", help="with activation checkpointing")
    parser.add_argument(
        "--profile", action="store_true", help="instead: where the time of a step goes, by kind of work"
    )
    return parser


def _of_case(case: Case, repeats: int, *, hf: bool) -> list[Row]:
    by_name = arms(case, hf=hf)
    if not torch.cuda.is_available():
        return rows(case, interleave_steps(by_name, repeats))
    times, again = one_by_one(by_name, repeats)
    return [*rows(case, times), median_row("drift", [again], stage=case.stage, size=size_name(case.size))]


def one_by_one(by_name: Mapping[str, Arm], repeats: int) -> tuple[dict[str, list[Seconds]], float]:
    """Times of each arm, and the first one's median when it takes a second turn behind all others, over its first.

    Raises RuntimeError if one ends by itself.
    """
    first = next(iter(by_name))
    turns = []
    for name, times in take_turns(by_name, [*by_name, first], repeats):
        if isinstance(times, RuntimeError):
            raise times
        turns.append((name, times))
    before, again = (statistics.median(each.wall for each in times) for _, times in (turns[0], turns[-1]))
    return dict(turns[:-1]), again / before


def arms(case: Case, *, hf: bool) -> dict[str, Arm]:
    by_name = {"matmul": arm(matmuls, case), "plain": arm(plain, case)}
    if hf and case.stage in HAVE_COUNTERPART:
        by_name["hf"] = arm(hugging_face, case)
    by_name |= {f"zero{zero}": arm(engine, case, zero=zero) for zero in ZERO}
    return by_name | {"trainer": arm(trainer, case, zero=TRAINER_ZERO)}


def rows(case: Case, times: Times) -> list[Row]:
    """What a step needs, time and operations a second of each arm, and the ratios of the goals."""
    result = needs(case)
    for clock in ("wall", "cpu"):
        dimensions = {"stage": case.stage, "size": size_name(case.size), "clock": clock}
        seconds = {name: [getattr(each, clock) for each in series] for name, series in times.items()}
        for name in seconds:
            result += _of_arm(case, name, seconds, dimensions | {"arm": name})
        for baseline in ("plain", f"zero{TRAINER_ZERO}"):
            slower = [ratio - 1 for ratio in ratios(seconds["trainer"], seconds[baseline])]
            result.append(median_row("trainer_overhead", slower, **dimensions, over=baseline))
    return result


def _of_arm(case: Case, name: str, seconds: Mapping[str, Sequence[float]], dimensions: Row) -> Iterator[Row]:
    own, cost = seconds[name], case.cost()
    yield median_row("milliseconds", [1000 * each for each in own], **dimensions)
    if name in ("hf", "matmul"):
        return
    operations = cost.forward + cost.backward
    yield median_row("model_flops_per_second", [operations / each for each in own], **dimensions)
    yield median_row("flops_share", ratios(seconds["matmul"], own), **dimensions)
    rate = peak_rate()
    if rate is not None and dimensions["clock"] == "wall":
        yield median_row("mfu", [operations / each / rate for each in own], **dimensions)
        yield median_row("hfu", [cost.total / each / rate for each in own], **dimensions)
    if "hf" in seconds:
        yield median_row("ratio_vs_hf", ratios(seconds["hf"], own), **dimensions)


def needs(case: Case) -> list[Row]:
    """Operations of a step, and the bytes that its weights move at least in float32: each is read forward and backward,
    its gradient written, and AdamW reads four numbers for it and writes three."""
    run = case.run()
    numbers = sum(each.size() for each in learning(parameters(run.model, case.size.vocabulary), run.stages[0]))
    dimensions = {"stage": case.stage, "size": size_name(case.size)}
    operations = case.cost().forward + case.cost().backward
    return [
        median_row("model_flops", [operations], **dimensions),
        median_row("weight_bytes", [10 * 4 * numbers], **dimensions),
    ]


def rounds_rows(size: Size, repeats: int) -> list[Row]:
    """Stage `joint` with eight rounds over one, a window each, optimizer and all."""
    cases = {str(rounds): arm(engine, Case("joint", size, rounds), zero=TRAINER_ZERO) for rounds in (1, 8)}
    times = interleave_steps(cases, repeats)
    result = []
    for clock in ("wall", "cpu"):
        dimensions = {"stage": "joint", "size": size_name(size), "clock": clock, "arm": f"zero{TRAINER_ZERO}"}
        eight, one = ([getattr(each, clock) for each in times[rounds]] for rounds in ("8", "1"))
        result.append(median_row("time_ratio_l8_l1", ratios(eight, one), **dimensions))
    return result


if __name__ == "__main__":
    sys.exit(main())
