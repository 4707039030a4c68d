"""One process, the real DeepSpeed: what learns, what decays, and what must not pass unnoticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dualmask.batch import Batch
from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.curriculum import plan_at
from dualmask.models.dualmask import DualMask
from dualmask.training.engine import StageEngine, init_distributed, parameter_groups
from dualmask.training.errors import TrainingError
from dualmask.training.step import run_step

VOCAB = 64


def make_run(**stage: Any) -> RunConfig:
    first = {"name": "picker", "steps": 4, "train": ["picker", "inserter"], "lr": {"peak": 1e-2, "decay": "constant"}}
    small = {"hidden": 16, "heads": 2, "filler_layers": 1, "inserter_layers": 1, "picker_layers": 1, "max_length": 12}
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": small,
            "batch": {"sequences": 4},
            "stages": [first | stage],
        }
    )


LEARNING = {"ptr_count": 1.0, "keep_recover": 1.0}


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_engine(run: RunConfig) -> StageEngine:
    torch.manual_seed(0)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    return StageEngine(run, run.stages[0], DualMask(run.model, VOCAB), settings)


def make_batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, VOCAB, (4, 12), generator=draw)
    return Batch(tokens, torch.full((4,), 12), torch.arange(4) + 77)


def test_parameter_groups() -> None:
    run = make_run(lr_scale={"inserter": 0.25})
    model = DualMask(run.model, VOCAB)
    groups = {group["name"]: group for group in parameter_groups(model, run.stages[0], 0.3)}
    assert set(groups) == {"picker.matrices", "picker.vectors", "inserter.matrices", "inserter.vectors"}
    assert groups["inserter.vectors"]["lr_scale"] == 0.25
    assert groups["picker.matrices"]["weight_decay"] == 0.3
    assert groups["picker.vectors"]["weight_decay"] == 0.0
    assert all(parameter.ndim == 1 for parameter in groups["picker.vectors"]["params"])
    grouped = [id(parameter) for group in groups.values() for parameter in group["params"]]
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped)) == len(learning)
    assert {name.split(".")[0] for name in learning} == {"picker", "inserter"}


def test_only_what_learns_changes() -> None:
    run = make_run(losses=LEARNING)
    engine = make_engine(run)
    before = engine.slices()
    result = run_step(engine, make_batch(), plan_at(run.stages, 0), micros=1)
    after = engine.whole_weights()
    engine.close()
    assert result.taken
    assert result.tokens == 48
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"picker", "inserter"}


def test_a_module_without_a_gradient_is_named() -> None:
    """ZeRO would apply the gradient of the step before once more, without a word."""
    run = make_run(losses={"ptr_count": 1.0})
    engine = make_engine(run)
    with pytest.raises(TrainingError, match=r"stage picker: no gradient reached picker\."):
        run_step(engine, make_batch(), plan_at(run.stages, 0), micros=1)
    engine.close()


def test_stop_wish_reaches_the_result() -> None:
    run = make_run(losses=LEARNING)
    engine = make_engine(run)
    assert run_step(engine, make_batch(), plan_at(run.stages, 0), micros=2, stop=True).stop
    assert not run_step(engine, make_batch(), plan_at(run.stages, 1), micros=2).stop
    engine.close()
