"""The run file and DeepSpeed's dictionary say the same; a user's file adds, and never contradicts unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_config_load import TREE

from dualmask.config.deepspeed import deepspeed_config, load_user_config, micro_batches
from dualmask.config.schema import RunConfig
from dualmask.config.tree import ConfigError


def run(**changes: Any) -> RunConfig:
    return RunConfig.model_validate(TREE | changes)


def settings(
    user: dict[str, Any] | None = None, data_size: int = 2, cuda: bool = False, **changes: Any
) -> dict[str, Any]:
    made = run(**changes)
    return deepspeed_config(made, made.stages[0], data_size=data_size, cuda=cuda, user=user)


def test_sizes_multiply() -> None:
    made = settings(batch={"sequences": 48, "micro": 4}, data_size=3)
    assert made["train_batch_size"] == 48
    assert made["train_micro_batch_size_per_gpu"] == 4
    assert made["gradient_accumulation_steps"] == 4


@pytest.mark.parametrize(
    ("batch", "ranks", "named"),
    [
        ({"sequences": 9}, 2, "batch.sequences=9"),
        ({"sequences": 8, "micro": 3}, 2, "batch.micro=3"),
        ({"sequences": 8, "micro": 8}, 2, "batch.micro=8"),
    ],
)
def test_sizes_that_do_not_fit(batch: dict[str, int], ranks: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        micro_batches(run(batch=batch), ranks)


def test_every_key_of_the_optimizer_arrives() -> None:
    made = settings(optimizer={"beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "weight_decay": 0.7, "clip": 0.25})
    assert made["gradient_clipping"] == 0.25
    params = made["optimizer"]["params"]
    assert (params["betas"], params["eps"], params["weight_decay"]) == ([0.5, 0.6], 1e-3, 0.7)
    assert params["fused"]


def test_precision_and_stage() -> None:
    made = settings(parallel={"precision": "bf16", "zero_stage": 2})
    assert made["bf16"] == {"enabled": True, "check_grad_overflow": True}
    assert made["zero_optimization"]["stage"] == 2


@pytest.mark.parametrize(
    ("user", "optimizer", "named"),
    [
        ({"zero_optimization": {"round_robin_gradients": True}}, "adamw", "round_robin_gradients = True"),
        ({"optimizer": {"type": "Muon"}}, "muon", r"optimizer\.type = 'Muon' does not go with optimizer\.name=muon"),
        ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, "muon", "device = 'nvme' does not go"),
    ],
)
def test_what_would_go_wrong_unnoticed(user: dict[str, Any], optimizer: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings(user, optimizer={"name": optimizer})


def test_muon_may_lie_on_the_cpu() -> None:
    user = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}, "round_robin_gradients": False}}
    made = settings(user, optimizer={"name": "muon"})
    assert made["zero_allow_untested_optimizer"]
    assert not made["zero_force_ds_cpu_optimizer"]


def test_user_adds_and_wins() -> None:
    user = {
        "zero_optimization": {"stage3_param_persistence_threshold": 0, "reduce_bucket_size": 7, "stage": "auto"},
        "gradient_clipping": 1.0,
        "wall_clock_breakdown": True,
    }
    made = settings(user)
    assert made["zero_optimization"]["stage3_param_persistence_threshold"] == 0
    assert made["zero_optimization"]["reduce_bucket_size"] == 7
    assert made["zero_optimization"]["stage"] == 3
    assert made["wall_clock_breakdown"]


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ({"gradient_clipping": 5}, "optimizer.clip"),
        ({"zero_optimization": {"stage": 1}}, "parallel.zero_stage"),
        ({"train_batch_size": 1}, "batch.sequences"),
        ({"bf16": {"enabled": True}}, "parallel.precision"),
        ({"fp16": {"enabled": True}}, "parallel.precision"),
        ({"optimizer": {"params": {"lr": 1}}}, "lr.peak"),
        ({"scheduler": {"type": "WarmupLR"}}, "stages"),
    ],
)
def test_contradictions_are_named(user: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        settings(user)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1', "[" * 100_000])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(ConfigError, match=r"ds\.json") as caught:
        load_user_config(tmp_path / "ds.json")
    assert "\n" not in str(caught.value)
