"""The teacher that follows its model: in bfloat16, over skipped steps, and from a checkpoint on, under DeepSpeed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import stages
import torch
from tiny_span import PARTS, SPAN, VOCAB, make_texts
from torch import Tensor, nn

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at
from dualmask.families.span import task
from dualmask.families.span.losses import span_loss
from dualmask.families.task import WindowLoss, build
from dualmask.training.average import MovingAverage
from dualmask.training.engine import StageEngine, StepResult, init_distributed, run_step
from dualmask.training.shards import ShardFolder, write_index, write_pieces

DECAY = 0.75


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_run(**parallel: Any) -> RunConfig:
    span = {"teacher": "ema", "ema_decay": DECAY, "lengths": [SPAN], "losses": {"latent": 2.0}, "teacher_forcing": 0.5}
    train = ["decoder", "encoder", "gate"]
    stage = {"name": "span", "steps": 9, "train": train, "lr": {"peak": 1e-2, "decay": "constant"}, "span": span}
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": PARTS.model_dump(),
            "batch": {"sequences": 6},
            "parallel": parallel,
            "stages": [stage],
        }
    )


def make_engine(run: RunConfig, seed: int) -> StageEngine:
    torch.manual_seed(seed)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    return stages.make_engine(run, build(run.model, VOCAB), settings)


def steps(engine: StageEngine, run: RunConfig, numbers: range) -> list[StepResult]:
    return [run_step(engine, make_texts(), plan_at(run.stages, number), micros=1) for number in numbers]


def teacher_of(engine: StageEngine) -> list[Tensor]:
    assert engine._follower is not None
    return [value.clone() for value in engine._follower._average]


def save(engine: StageEngine, folder: Path) -> None:
    entries = write_pieces(folder, 0, list(engine.partition.pieces()))
    write_index(folder, entries, tensor_size=1, updates=engine.partition.updates)


@pytest.mark.parametrize(("zero_stage", "precision"), [(0, "fp32"), (1, "fp32"), (1, "bf16"), (3, "fp32"), (3, "bf16")])
def test_a_checkpoint_holds_the_teacher(zero_stage: int, precision: str, tmp_path: Path) -> None:
    """Bit for bit, where DeepSpeed keeps frozen weights whole and where it keeps parts of them."""
    run = make_run(zero_stage=zero_stage, precision=precision)
    engine = make_engine(run, seed=1)
    steps(engine, run, range(2))
    save(engine, tmp_path)
    teacher, expected = teacher_of(engine), steps(engine, run, range(2, 4))
    engine.close()
    fresh = make_engine(run, seed=2)
    fresh.partition.fill(ShardFolder(tmp_path))
    assert all(map(torch.equal, teacher_of(fresh), teacher))
    assert steps(fresh, run, range(2, 4)) == expected
    fresh.close()


def test_a_step_that_is_not_taken_moves_no_teacher() -> None:
    def not_finite(*arguments: Any) -> WindowLoss:
        report = span_loss(*arguments)
        return WindowLoss(report.total * torch.nan, report.parts)

    run = make_run(zero_stage=1)
    engine = make_engine(run, seed=1)
    assert steps(engine, run, range(1))[0].taken
    before = teacher_of(engine)
    with patch.object(task, "span_loss", not_finite):
        assert not steps(engine, run, range(1, 2))[0].taken
    assert all(map(torch.equal, teacher_of(engine), before))
    assert steps(engine, run, range(2, 3))[0].taken
    assert not any(map(torch.equal, teacher_of(engine), before))
    engine.close()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_average_is_the_one_of_the_formula(precision: torch.dtype) -> None:
    """A decay of 0.999 moves a bfloat16 copy, too, which rounding alone would hold where it is."""
    torch.manual_seed(0)
    copy, original = nn.Linear(5, 4).to(precision), nn.Linear(5, 4).to(precision)
    average = MovingAverage(copy, original, 0.999)
    expected = [parameter.detach().float().clone() for parameter in copy.parameters()]
    for _ in range(300):
        with torch.no_grad():
            for parameter in original.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
        average.follow()
        expected = [
            averaged + 0.001 * (value.detach().float() - averaged)
            for averaged, value in zip(expected, original.parameters(), strict=True)
        ]
    for averaged, value in zip(copy.parameters(), expected, strict=True):
        torch.testing.assert_close(averaged.detach(), value.to(precision), rtol=1e-5, atol=1e-6)
    assert all(value.dtype == torch.float32 for value in average.kept.values())
