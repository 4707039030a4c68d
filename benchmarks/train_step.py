"""How fast a training step is: ``python -m benchmarks.train_step --json out.json``.

For each stage and size the arms take their steps in turns, each in a process of its own with one thread: the step's
matrix products alone (the floor), a plain PyTorch loop, our engine under ZeRO 0, 1 and 3, the whole trainer, and BERT
or GPT-2 of Hugging Face of equal size and tokens. BERT makes logits of every place, stage `filler` only of the holes.
Ratios are of steps of the same turn; ``clock`` cpu is the processor time of the process, which others' load changes
little. On CUDA time is taken from events of the device, and its share of the peak (``mfu``, ``hfu``) is reported too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import operators, turns
from benchmarks.rounds_memory import Size
from benchmarks.rows import median_row
from benchmarks.step_arms import STAGES, Case, arm, engine, hugging_face, matmuls, need_transformers, plain, trainer
from benchmarks.turns import Arm, Seconds
from dualmask.evaluation.report import write
from launcher.planner.parameters import learning, parameters

Row = dict[str, Any]
Times = Mapping[str, Sequence[Seconds]]
SIZES = {
    "tiny": Size(),  # the model of `make train`
    "small": Size(hidden=256, layers=6, heads=8, length=128, sequences=16, vocabulary=8192),
    "medium": Size(hidden=512, layers=8, heads=8, length=256, sequences=8, vocabulary=16384),
    "350m": Size(hidden=1024, layers=24, heads=16, length=1024, sequences=16, vocabulary=50304),  # for GPUs
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # operations a second, bfloat16, without sparsity
ZERO = (0, 1, 3)
TRAINER_ZERO = 1


def main(arguments: list[str] | None = None) -> int:
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
    asked = parser.parse_args(arguments)
    cases = [
        Case(stage, SIZES[size], checkpointing=asked.checkpointing) for size in asked.sizes for stage in asked.stages
    ]
    try:
        if asked.profile:
            for case in cases:
                operators.show(f"{case.stage} {name_of(case.size)}", operators.profile(case))
            return 0
        if asked.json is None:
            raise ValueError("--json is missing: name the result file")
        if "hf" not in asked.without:
            need_transformers()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = [partial(_of_case, case, asked.repeats, hf="hf" not in asked.without) for case in cases]
    if "rounds" not in asked.without:
        measured.append(partial(rounds_rows, SIZES[asked.sizes[0]], asked.repeats))
    about: dict[str, Any] = {
        "sizes": {name: asdict(SIZES[name]) for name in asked.sizes},
        "load_a_core": [turns.load()],
    }
    found: list[Row] = []
    for measure in measured:
        show(new := measure())
        found += new
        about["load_a_core"].append(turns.load())
        write(asked.json, "train_step", found, **about)  # kept if one of the next is cut off
    return 0


def _of_case(case: Case, repeats: int, *, hf: bool) -> list[Row]:
    return rows(case, turns.take_turns(arms(case, hf=hf), repeats))


def arms(case: Case, *, hf: bool) -> dict[str, Arm]:
    made = {"matmul": arm(matmuls, case), "plain": arm(plain, case)}
    if hf and case.stage != "joint":  # nothing there plays rounds
        made["hf"] = arm(hugging_face, case)
    made |= {f"zero{zero}": arm(engine, case, zero=zero) for zero in ZERO}
    return made | {"trainer": arm(trainer, case, zero=TRAINER_ZERO)}


def rows(case: Case, times: Times) -> list[Row]:
    """What a step needs, time and operations a second of each arm, and the ratios of the goals."""
    cost, found = case.cost(), needs(case)
    for clock in ("wall", "cpu"):
        where = {"stage": case.stage, "size": name_of(case.size), "clock": clock}
        taken = {name: [getattr(each, clock) for each in series] for name, series in times.items()}
        for name, seconds in taken.items():
            here = where | {"arm": name}
            found.append(median_row("milliseconds", [1000 * each for each in seconds], **here))
            if name not in ("hf", "matmul"):
                operations = cost.forward + cost.backward
                found.append(median_row("model_flops_per_second", [operations / each for each in seconds], **here))
                found.append(median_row("flops_share", _over(taken["matmul"], seconds), **here))
                found += _of_peak(cost.forward + cost.backward, cost.total, seconds, here) if clock == "wall" else []
                if "hf" in taken:
                    found.append(median_row("ratio_vs_hf", _over(taken["hf"], seconds), **here))
        slower = [ratio - 1 for ratio in _over(taken["trainer"], taken["plain"])]
        found.append(median_row("trainer_overhead", slower, **where, over="plain"))
        slower = [ratio - 1 for ratio in _over(taken["trainer"], taken[f"zero{TRAINER_ZERO}"])]
        found.append(median_row("trainer_overhead", slower, **where, over=f"zero{TRAINER_ZERO}"))
    return found


def needs(case: Case) -> list[Row]:
    """Operations of a step, and the bytes that its weights move at least in float32: each is read forward and backward,
    its gradient written, and AdamW reads four numbers for it and writes three."""
    run = case.run()
    numbers = sum(each.size() for each in learning(parameters(run.model, case.size.vocabulary), run.stages[0]))
    where = {"stage": case.stage, "size": name_of(case.size)}
    model = case.cost().forward + case.cost().backward
    return [median_row("model_flops", [model], **where), median_row("weight_bytes", [10 * 4 * numbers], **where)]


def rounds_rows(size: Size, repeats: int) -> list[Row]:
    """Stage `joint` with eight rounds over one, a window each, optimizer and all."""
    played = {str(rounds): arm(engine, Case("joint", size, rounds), zero=TRAINER_ZERO) for rounds in (1, 8)}
    times = turns.take_turns(played, repeats)
    return [
        median_row(
            "time_ratio_l8_l1",
            _over([getattr(each, clock) for each in times["8"]], [getattr(each, clock) for each in times["1"]]),
            stage="joint", size=name_of(size), clock=clock, arm=f"zero{TRAINER_ZERO}",
        )
        for clock in ("wall", "cpu")
    ]  # fmt: skip


def name_of(size: Size) -> str:
    return next((name for name, known in SIZES.items() if known == size), str(size))


def peak() -> float | None:
    """Operations a second that the device could do; None: not known."""
    if not torch.cuda.is_available():
        return None
    return next((rate for name, rate in PEAKS.items() if name in torch.cuda.get_device_name()), None)


def _of_peak(model: float, hardware: float, seconds: Sequence[float], where: Row) -> Iterator[Row]:
    if (rate := peak()) is not None:
        yield median_row("mfu", [model / each / rate for each in seconds], **where)
        yield median_row("hfu", [hardware / each / rate for each in seconds], **where)


def _over(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def show(found: Sequence[Row]) -> None:
    for row in found:
        what = " ".join(str(row[name]) for name in ("stage", "size", "arm", "over", "clock") if name in row)
        print(f"{row['metric']:24} {what:28} {row['value']:16,.3f}   ({row['lo']:,.3f} … {row['hi']:,.3f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
