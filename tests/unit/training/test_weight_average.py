"""The average of a run's weights: of every family, under any ZeRO stage, in checkpoints, and in what is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from torch import Tensor

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.training.engine import StageEngine, init_distributed, run_step
from dualmask.training.shards import AVERAGE, ShardFolder, write_index, write_pieces

VOCAB, DECAY = 64, 0.3
SMALL = {"hidden": 16, "heads": 2, "max_length": 12}
FAMILIES = {
    "dualmask": ("filler", ["filler"]),  # inserter, picker and gate are frozen
    "autoregressive": ("lm", ["lm"]),
}


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_run(family: str = "dualmask", ema_decay: float | None = DECAY, **parallel: Any) -> RunConfig:
    layers = {} if family == "dualmask" else {"layers": 1}
    name, train = FAMILIES[family]
    stage = {"name": name, "steps": 9, "train": train, "lr": {"peak": 1e-2, "decay": "constant"}}
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": {"family": family, **SMALL, **layers},
            "batch": {"sequences": 4},
            "optimizer": {"ema_decay": ema_decay},
            "parallel": parallel,
            "stages": [stage],
        }
    )


def make_engine(run: RunConfig, seed: int = 0) -> StageEngine:
    torch.manual_seed(seed)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    return stages.make_engine(run, build(run.model, VOCAB), settings)


def step(engine: StageEngine, run: RunConfig, number: int) -> dict[str, Tensor]:
    """The weights behind it."""
    tokens = torch.randint(6, VOCAB, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.full((4,), 12), torch.arange(4) + 77)
    assert run_step(engine, batch, plan_at(run.stages, number), micros=1).taken
    return dict(engine.whole_weights().stream)


def save(engine: StageEngine, folder: Path) -> ShardFolder:
    entries = write_pieces(folder, 0, list(engine.partition.pieces()))
    write_index(folder, entries, tensor_size=1, updates=engine.partition.updates)
    return ShardFolder(folder)


@pytest.mark.parametrize(
    ("family", "zero_stage", "precision"),
    [("dualmask", 0, "fp32"), ("dualmask", 2, "bf16"), ("dualmask", 3, "bf16"), ("autoregressive", 1, "fp32")],
)
def test_it_is_the_average_of_the_formula(family: str, zero_stage: int, precision: str) -> None:
    run = make_run(family, zero_stage=zero_stage, precision=precision)
    engine = make_engine(run)
    first = dict(engine.whole_weights().stream)
    expected = dict(first)
    for number in range(4):
        decay = min(DECAY, (1 + number) / (10 + number))
        for name, weight in step(engine, run, number).items():
            expected[name] = decay * expected[name] + (1 - decay) * weight
    last, average = dict(engine.whole_weights().stream), dict(engine.whole_weights("average").stream)
    learning = {name for name, p in engine.model.named_parameters() if p.requires_grad}
    still = {name for name in learning if torch.equal(first[name], last[name])}
    assert still <= {"filler.hint.weight", "filler.doubt.bias"}  # nothing is told or doubted in this stage
    engine.close()
    for name, value in expected.items():
        torch.testing.assert_close(average[name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(average[name], last[name]) == (name not in learning - still), name


@pytest.mark.parametrize(("zero_stage", "precision"), [(0, "fp32"), (1, "bf16"), (3, "fp32"), (3, "bf16")])
def test_a_checkpoint_holds_it(zero_stage: int, precision: str, tmp_path: Path) -> None:
    """Bit for bit, and the number of its updates, on which its decay depends."""
    run = make_run(zero_stage=zero_stage, precision=precision)
    engine = make_engine(run)
    for number in range(2):
        step(engine, run, number)
    shards = save(engine, tmp_path)
    step(engine, run, 2)
    expected = dict(engine.whole_weights("average").stream)
    engine.close()
    fresh = make_engine(run, seed=1)
    fresh.partition.fill(shards)
    step(fresh, run, 2)
    seen = dict(fresh.whole_weights("average").stream)
    fresh.close()
    assert all(torch.equal(seen[name], value) for name, value in expected.items())


def test_it_may_begin_at_a_checkpoint_that_has_none(tmp_path: Path) -> None:
    """With the weights that are there."""
    run = make_run(ema_decay=None, zero_stage=3)
    engine = make_engine(run)
    step(engine, run, 0)
    shards, expected = save(engine, tmp_path), dict(engine.whole_weights().stream)
    engine.close()
    assert AVERAGE not in shards.kinds("model.filler.up.weight")
    fresh = make_engine(make_run(zero_stage=3), seed=1)
    fresh.partition.fill(shards)
    seen = dict(fresh.whole_weights("average").stream)
    fresh.close()
    assert all(torch.equal(seen[name], value) for name, value in expected.items())


def test_an_export_needs_what_it_exports() -> None:
    tree = make_run(ema_decay=None).model_dump(mode="json") | {"checkpoint": {"export": "average"}}
    with pytest.raises(ValueError, match=r"checkpoint\.export=average needs an average: set optimizer\.ema_decay"):
        RunConfig.model_validate(tree)
    assert RunConfig.model_validate(tree | {"optimizer": {"ema_decay": 0.9}}).checkpoint.export == "average"
