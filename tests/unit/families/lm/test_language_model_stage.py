"""A language model under the real DeepSpeed learns what a plain loop teaches it."""

from __future__ import annotations

import math

import plain_language_model
import pytest
import torch
from stages import make_task

from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.training.engine import init_distributed, run_step
from dualmask.training.trainer import Stages

VOCAB, STEPS = 64, 3


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_run(family: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": {"family": family, "hidden": 16, "heads": 2, "layers": 1, "max_length": 12},
            "batch": {"sequences": 4, "micro": 2},
            "optimizer": {"eps": 1e-4, "weight_decay": 0.1},
            "stages": [{"name": "lm", "steps": STEPS, "train": ["lm"], "lr": {"peak": 1e-2}}],
        }
    )


def batch_of(step: int) -> Batch:
    tokens = torch.randint(6, VOCAB, (4, 12), generator=torch.Generator().manual_seed(step))
    return Batch(tokens, torch.tensor([12, 9, 12, 5]), torch.arange(4) + 77)


@pytest.mark.parametrize("family", ["autoregressive", "diffusion"])
def test_the_engine_learns_what_a_plain_loop_learns(family: str) -> None:
    run = make_run(family)
    engine = Stages(run, VOCAB).build(0)
    results = [run_step(engine, batch_of(step), plan_at(run.stages, step), micros=2) for step in range(STEPS)]
    weights = dict(engine.whole_weights().stream)
    engine.close()
    losses, wanted = plain_language_model.train(run, VOCAB, map(batch_of, range(STEPS)))
    assert [result.losses["total"] for result in results] == pytest.approx(losses, abs=1e-5)
    assert [result.losses["nll"] for result in results] == pytest.approx(losses, abs=1e-5)
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert (weights[name] - weight).abs().max() < 1e-5, name


@pytest.mark.parametrize("family", ["autoregressive", "diffusion"])
def test_judged_by_nats_a_token_however_texts_are_divided(family: str) -> None:
    run = make_run(family)
    torch.manual_seed(run.seed)
    model = build(run.model, VOCAB)
    measure, plan, batch = make_task(model, run.stages[0], run).measure(), plan_at(run.stages, 0), batch_of(0)
    with torch.no_grad():
        whole = measure.sums(batch, plan)
        halves = [measure.sums(batch.rows(part), plan) for part in (slice(0, 1), slice(1, 4))]
        out = model(batch, plan)
    figures = measure.figures(whole)
    joined = measure.figures({name: halves[0][name] + halves[1][name] for name in whole})
    assert figures == pytest.approx(joined, rel=1e-6)
    tokens = int((batch.length - (1 if family == "autoregressive" else 2)).sum())
    assert figures["dev_loss"] == pytest.approx(float((out.loss * out.slot_weight).sum()) / tokens, rel=1e-5)
    assert figures["dev_bits"] == pytest.approx(figures["dev_loss"] / math.log(2))
