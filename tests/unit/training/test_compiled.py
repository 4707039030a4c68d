"""Compiled blocks compute what plain ones do, under the ZeRO stages that leave parameters whole."""

from __future__ import annotations

import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch._dynamo
from pydantic import ValidationError

from benchmarks.runs import Size, random_batch
from benchmarks.step_arms import Case
from dualmask.config.schema import ParallelConfig
from dualmask.curriculum import plan_at
from dualmask.training import compiled
from dualmask.training.engine import init_distributed, run_step
from dualmask.training.errors import TrainingError
from dualmask.training.trainer import Stages

SIZE = Size(hidden=32, layers=2, heads=2, length=16, sequences=4, vocabulary=128)


def losses(zero: int, checkpointing: bool, compiles: bool) -> tuple[list[float], int, int]:
    """Of three steps of stage joint; how many frames were compiled, and how often one was cut in pieces."""
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    run = Case("joint", SIZE, 2, window=2, checkpointing=checkpointing).run(zero)
    run = run.model_copy(update={"parallel": run.parallel.model_copy(update={"compile": compiles})})
    engine = Stages(run, SIZE.vocabulary).build(0)
    results = [run_step(engine, random_batch(SIZE, step), plan_at(run.stages, step), micros=1) for step in range(3)]
    engine.close()
    counters = torch._dynamo.utils.counters
    return [result.losses["total"] for result in results], counters["frames"]["ok"], counters["graph_break"].total()


def elsewhere(*arguments: object) -> tuple[list[float], int, int]:
    """``losses`` in a process of its own: the compiler leaves tensors behind that are none."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(losses, arguments)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, compiled.COMPILERS)), reason="needs a C++ compiler")
@pytest.mark.parametrize(("zero", "checkpointing"), [(0, False), (1, True)])
def test_the_same_losses(zero: int, checkpointing: bool) -> None:
    plain, frames, _ = elsewhere(zero, checkpointing, False)
    assert frames == 0
    compiled_losses, frames, breaks = elsewhere(zero, checkpointing, True)
    assert compiled_losses == pytest.approx(plain, rel=1e-5)
    assert frames > 0
    assert breaks == 0  # a block is one graph


def test_without_a_compiler_the_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TrainingError, match=r"parallel\.compile=true needs a C\+\+ compiler.*install g\+\+"):
        compiled.compile_blocks(torch.nn.Linear(1, 1))


def test_zero_3_refuses_to_compile() -> None:
    with pytest.raises(ValidationError, match=r"compile=true, zero_stage=3.*set zero_stage to 2 or less"):
        ParallelConfig(compile=True, zero_stage=3)
    assert ParallelConfig(compile=True, zero_stage=2).compile
