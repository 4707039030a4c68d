"""How long a checkpoint holds a step up: ``python -m benchmarks.checkpoint --json out.json``.

A step, a checkpoint, a step, again and again, written in the background (a copy in memory, a thread that writes) and
waited for. The two arms take turns on the same engine and disk. ``held_up`` is what the training loop loses to the call
of save, ``step_beside`` the time of the next step over that of the one before, ``written`` the time until the folder
is whole. In one process and float32 a checkpoint holds twelve bytes of each parameter that learns, four of the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.rows import median_row
from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import SPECIAL_IDS
from dualmask.curriculum import plan_at
from dualmask.evaluation.report import write
from dualmask.families.task import build
from dualmask.training.checkpoint import Checkpoints, TrainingState
from dualmask.training.engine import StageEngine, init_distributed, run_step

LENGTH, SEQUENCES, VOCABULARY = 128, 8, 8192
ARMS = {"background": True, "waited for": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where checkpoints go; by default where temporary files do")
    asked = parser.parse_args()
    run = configuration(asked.hidden, asked.layers)
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    engine = StageEngine(
        run, run.stages[0], build(run.model, VOCABULARY), deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    )
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        seen = measure(run, engine, Path(folder), asked.repeats)
    rows = [
        median_row(metric, values, method=arm) for arm, metrics in seen.items() for metric, values in metrics.items()
    ]
    size = sum(parameter.numel() for parameter in engine.model.parameters())
    result = write(asked.json, "checkpoint", rows, parameters=size, hidden=asked.hidden, layers=asked.layers)
    for row in result["rows"]:
        print(f"{row['method']:12} {row['metric']:12} {row['value']:8.3f}   ({row['lo']:.3f} … {row['hi']:.3f})")


def configuration(hidden: int, layers: int) -> RunConfig:
    stage = {"name": "filler", "steps": 10**6, "train": ["filler"], "lr": {"peak": 1e-4, "decay": "constant"}}
    model = {"hidden": hidden, "heads": 8, "filler_layers": layers, "inserter_layers": 1, "picker_layers": 1}
    return RunConfig.model_validate(
        {
            "name": "checkpoint",
            "output": "checkpoint",
            "data": {"path": "none"},
            "model": model | {"max_length": LENGTH},
            "batch": {"sequences": SEQUENCES},
            "parallel": {"zero_stage": 1},
            "stages": [stage],
        }
    )


def measure(run: RunConfig, engine: StageEngine, folder: Path, repeats: int) -> dict[str, dict[str, list[float]]]:
    """arm → metric → seconds, or a ratio, of each repeat."""
    checkpoints = {arm: Checkpoints(folder / arm, 1, background=background) for arm, background in ARMS.items()}
    seen: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
    timed_step(run, engine, 0)
    for number in range(1, repeats + 1):
        for arm, writer in checkpoints.items():
            alone = timed_step(run, engine, number)
            start = time.perf_counter()
            partition = engine.partition
            writer.save(list(partition.pieces()), state(run, number), partition.updates)
            held_up = time.perf_counter() - start
            beside = timed_step(run, engine, number)
            writer.wait()
            figures = {"held_up": held_up, "step_alone": alone, "step_beside": beside / alone}
            for metric, value in (figures | {"written": time.perf_counter() - start}).items():
                seen[arm].setdefault(metric, []).append(value)
    return seen


def timed_step(run: RunConfig, engine: StageEngine, number: int) -> float:
    draw = torch.Generator().manual_seed(number)
    tokens = torch.randint(len(SPECIAL_IDS), VOCABULARY, (SEQUENCES, LENGTH), generator=draw)
    batch = Batch(tokens, torch.full((SEQUENCES,), LENGTH), torch.arange(SEQUENCES) + number * SEQUENCES)
    start = time.perf_counter()
    run_step(engine, batch, plan_at(run.stages, number), micros=1)
    return time.perf_counter() - start


def state(run: RunConfig, step: int) -> TrainingState:
    config, ranks = run.model_dump(mode="json"), {"data": 1, "tensor": 1}
    return TrainingState(step, 0, {}, config, VOCABULARY, "", ranks, {})


if __name__ == "__main__":
    main()
