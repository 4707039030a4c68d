"""Runs on two ranks: one rank's loss or gradient is not finite at some steps; a module gets no gradient in one window.
Each rank writes its results to a file."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from stages import make_task

from data_pipeline.reader import ShardReader, Share
from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.load import load_run
from dualmask.curriculum import first_step, plan_at
from dualmask.families.edit import task
from dualmask.families.edit.losses.total import round_loss, window_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.task import WindowLoss
from dualmask.nn.parallel import mesh
from dualmask.training import engine as engine_module
from dualmask.training.engine import run_step
from dualmask.training.errors import TrainingError

Bad = dict[int, tuple[int, str]]  # step of the stage: rank, and what is spoilt: its loss or its gradient


class SpoilGradient(torch.autograd.Function):
    """The value passes, its gradient becomes infinite."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def spoilt(bad: Bad):
    """The loss that ``RoundsTask`` calls, spoilt at some steps of a rank: of a stage with rounds in its last window."""

    def spoil(report: WindowLoss, plan) -> WindowLoss:
        rank, kind = bad.get(plan.step_in_stage, (None, ""))
        if dist.get_rank() != rank:
            return report
        total = report.total * math.nan if kind == "loss" else SpoilGradient.apply(report.total)
        return WindowLoss(total, report.parts)

    def of_window(outs, rounds, plan) -> WindowLoss:
        report = window_loss(outs, rounds, plan)
        return spoil(report, plan) if rounds == plan.windows[-1] else report

    return patch.multiple(task, round_loss=lambda out, plan: spoil(round_loss(out, plan), plan), window_loss=of_window)


def train(config: Path, overrides: list[str], bad: Bad, number: int, steps: int, *, leave_out: bool) -> dict:
    """Steps of stage ``number``, of which the bad ones are spoilt, or left out altogether."""
    run = load_run(config, overrides)
    stage, begin = run.stages[number], first_step(run.stages, number)
    torch.manual_seed(run.seed)
    settings = deepspeed_config(run, stage, data_size=2, cuda=False)
    engine = engine_module.StageEngine(run, stage, make_task(DualMask(run.model, 300), stage, run), settings)
    data = ShardReader(run.data.path, Share(4, rank=mesh.data_rank(), world=2))
    taken = []
    with spoilt(bad):
        for step in range(steps):
            batch, plan = next(data), plan_at(run.stages, begin + step)
            if leave_out and step in bad:
                continue
            micros = settings["gradient_accumulation_steps"]
            before = dict(engine.whole_weights().stream)
            taken.append(run_step(engine, batch, plan, micros=micros).taken)
            after = dict(engine.whole_weights().stream)
            assert taken[-1] or all(torch.equal(before[name], after[name]) for name in before)
    weights = dict(engine.whole_weights().stream)
    engine.close()
    data.close()
    return {"taken": taken, "weights": weights}


def without_gate_in_the_last_window(config: Path, overrides: list[str]) -> str:
    """What the engine says, on all ranks at once, instead of waiting for a gradient that nobody sends."""
    run = load_run(config, overrides)
    stage, plan = run.stages[3], plan_at(run.stages, first_step(run.stages, 3))

    def deaf(outs, rounds, plan) -> WindowLoss:
        last = rounds == plan.windows[-1]
        return window_loss([replace(out, gate=None) for out in outs] if last else outs, rounds, plan)

    settings = deepspeed_config(run, stage, data_size=2, cuda=False)
    engine = engine_module.StageEngine(run, stage, make_task(DualMask(run.model, 300), stage, run), settings)
    data = ShardReader(run.data.path, Share(4, rank=mesh.data_rank(), world=2))
    try:
        with patch.object(task, "window_loss", deaf):
            run_step(engine, next(data), plan, micros=settings["gradient_accumulation_steps"])
    except TrainingError as error:
        return str(error)
    finally:
        engine.close()
        data.close()
    return "no error"


def main() -> None:
    job = json.loads(Path(sys.argv[-1]).read_text())
    torch.set_num_threads(1)
    engine_module.init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    result = {}
    for name, variant in job["variants"].items():
        bad = {int(step): tuple(what) for step, what in variant["bad"].items()}
        arguments = Path(job["config"]), variant["set"], bad, variant.get("stage", 0), variant.get("steps", 5)
        spoilt_run, without = train(*arguments, leave_out=False), train(*arguments, leave_out=True)
        equal = all(torch.equal(spoilt_run["weights"][key], value) for key, value in without["weights"].items())
        result[name] = {"taken": spoilt_run["taken"], "without": without["taken"], "equal": equal}
    for name, overrides in job["silent"].items():
        result[name] = without_gate_in_the_last_window(Path(job["config"]), overrides)
    Path(job["out"], f"rank{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


main()
