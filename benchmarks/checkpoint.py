"""How long a checkpoint holds a step up: ``python -m benchmarks.checkpoint --json out.json``.

A step, a checkpoint, a step, again and again, written in the background (a copy in memory, a thread that writes) and
waited for, interleaved on the same engine and disk. ``held_up`` is what the training loop loses to the call of save,
``step_beside`` the time of the next step over that of the one before, ``written`` the time until the folder is whole.
In one process and float32 a checkpoint holds twelve bytes of each parameter that learns, four of the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.engines import build_engine, build_model, join
from benchmarks.runs import Size, random_batch, small_run
from benchmarks.timing import interleave, median_row, print_rows
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.engine import StageEngine, run_step

SIZE = Size(length=128, sequences=8, vocabulary=8192)  # hidden and layers are options
ARMS = {"background": True, "waited for": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where checkpoints go; by default where temporary files do")
    arguments = parser.parse_args()
    run = configuration(arguments.hidden, arguments.layers)
    join(cpu=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        engine = build_engine(run, build_model(run, SIZE.vocabulary))
        rows = measure(run, engine, Path(folder), arguments.repeats)
        parameters = sum(parameter.numel() for parameter in engine.model.parameters())
    about = {"parameters": parameters, "hidden": arguments.hidden, "layers": arguments.layers}
    print_rows(write(arguments.json, "checkpoint", rows, **about)["rows"])


def configuration(hidden: int, layers: int) -> RunConfig:
    stage = {"name": "filler", "train": ["filler"], "lr": {"peak": 1e-4, "decay": "constant"}}
    depth = {"filler_layers": layers, "inserter_layers": 1, "picker_layers": 1}
    model = {"hidden": hidden, "heads": 8, "max_length": SIZE.length} | depth
    return small_run(stage, model, batch={"sequences": SIZE.sequences}, parallel={"zero_stage": 1})


def measure(run: RunConfig, engine: StageEngine, folder: Path, repeats: int) -> list[Row]:
    """A row for each arm and metric: seconds, or a ratio."""
    timed_step(run, engine, 0)
    arms: dict[str, Callable[[int], dict[str, float]]] = {
        arm: partial(save, run, engine, Checkpoints(folder / arm, 1, background=background))
        for arm, background in ARMS.items()
    }
    return [
        median_row(metric, [figures[metric] for figures in series], method=arm)
        for arm, series in interleave(arms, repeats).items()
        for metric in ("held_up", "step_alone", "step_beside", "written")
    ]


def save(run: RunConfig, engine: StageEngine, checkpoints: Checkpoints, repeat: int) -> dict[str, float]:
    """One checkpoint between two steps, by metric."""
    step = repeat + 1
    alone = timed_step(run, engine, step)
    start = time.perf_counter()
    partition = engine.partition
    checkpoints.save(list(partition.pieces()), state(run, step), partition.updates)
    held_up = time.perf_counter() - start
    beside = timed_step(run, engine, step)
    checkpoints.wait()
    written = time.perf_counter() - start
    return {"held_up": held_up, "step_alone": alone, "step_beside": beside / alone, "written": written}


def timed_step(run: RunConfig, engine: StageEngine, step: int) -> float:
    batch = random_batch(SIZE, step)
    start = time.perf_counter()
    run_step(engine, batch, plan_at(run.stages, step), micros=1)
    return time.perf_counter() - start


def state(run: RunConfig, step: int) -> TrainingState:
    config, ranks = run.model_dump(mode="json"), {"data": 1, "tensor": 1}
    return TrainingState(step, 0, {}, config, SIZE.vocabulary, "", ranks, {})


if __name__ == "__main__":
    main()
