"""One process, the real DeepSpeed: what learns, what decays, and what must not pass unnoticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import stages
import torch

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families.edit import task
from dualmask.families.edit.losses import total
from dualmask.families.edit.model import DualMask
from dualmask.training.engine import StageEngine, init_distributed, parameter_groups, run_step
from dualmask.training.errors import TrainingError

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


def make_engine(run: RunConfig, family: type[DualMask] = DualMask) -> StageEngine:
    torch.manual_seed(0)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    return stages.make_engine(run, family(run.model, VOCAB), settings)


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
    before = dict(engine.whole_weights().stream)
    result = run_step(engine, make_batch(), plan_at(run.stages, 0), micros=1)
    after = dict(engine.whole_weights().stream)
    engine.close()
    assert result.taken
    assert result.tokens == 48
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"picker", "inserter"}


ROUNDS = {
    "name": "joint",
    "train": ["filler", "inserter", "picker", "gate"],
    "losses": {"ptr_count": 1.0, "keep_oracle": 1.0},
    "rollout": {"rounds": 3, "window": 2},
}


def assert_refused(engine: StageEngine, run: RunConfig, message: str) -> None:
    """ZeRO would apply the gradient of the step before once more, or hang, without a word."""
    with pytest.raises(TrainingError, match=message):
        run_step(engine, make_batch(), plan_at(run.stages, 0), micros=1)
    engine.close()


def test_a_module_without_a_loss_is_named() -> None:
    run = make_run(name="inserter", train=["filler", "inserter"], losses={"recon": 0.0, "ptr_count": 1.0})
    assert_refused(make_engine(run), run, r"stage inserter, rounds 0 to 0: no gradient reached filler\.")


def test_a_module_that_is_never_called_is_named() -> None:
    class Deaf(DualMask):
        def read(self, *arguments: Any) -> Any:
            reading = super().read(*arguments)
            return replace(reading, gate_logit=torch.zeros_like(reading.gate_logit))

    run = make_run(**ROUNDS)
    assert_refused(make_engine(run, Deaf), run, r"stage joint, rounds 0 to 1: no gradient reached gate\.")


def test_a_gate_that_nobody_listens_to_has_its_gradient_all_the_same() -> None:
    """By the zero that ``losses.total`` adds for each module: without it the stage ends."""
    run, outputs = make_run(**ROUNDS), total._outputs
    engine = make_engine(run)
    assert run_step(engine, make_batch(), plan_at(run.stages, 0), micros=1).taken
    with patch.object(total, "_outputs", lambda out: outputs(replace(out, gate=None))):
        assert_refused(engine, run, r"stage joint, rounds 0 to 1: no gradient reached gate\.")


def test_a_module_that_falls_silent_in_a_later_window_is_named() -> None:
    def window_loss(outs: Any, rounds: range, plan: Any) -> Any:
        outs = [replace(out, gate=None) for out in outs] if rounds.start else outs
        return total.window_loss(outs, rounds, plan)

    run = make_run(**ROUNDS)
    engine = make_engine(run)
    with patch.object(task, "window_loss", window_loss):
        assert_refused(engine, run, r"stage joint, rounds 2 to 2: no gradient reached gate\.")


def test_stop_wish_reaches_the_result() -> None:
    run = make_run(losses=LEARNING)
    engine = make_engine(run)
    assert run_step(engine, make_batch(), plan_at(run.stages, 0), micros=2, stop=True).stop
    assert not run_step(engine, make_batch(), plan_at(run.stages, 1), micros=2).stop
    engine.close()
