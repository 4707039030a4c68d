"""What may change between two lives of a run, and what may not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from test_config_load import TREE

from dualmask.config.resume import require_same_run
from dualmask.config.schema import RunConfig
from dualmask.config.tree import ConfigError


def changed(key: str, value: Any) -> RunConfig:
    tree = RunConfig.model_validate(TREE).model_dump(mode="json")
    section: Any = tree
    *path, last = key.split(".")
    for part in path:
        section = section[int(part)] if part.isdecimal() else section[part]
    section[int(last) if last.isdecimal() else last] = value
    return RunConfig.model_validate(tree)


SAVED = RunConfig.model_validate(copy.deepcopy(TREE)).model_dump(mode="json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("output", "elsewhere"),
        ("tracking.uri", "http://127.0.0.1:1"),
        ("checkpoint.every_steps", 1),
        ("data.path", "moved"),
        ("data.path", "https://store/moved"),
        ("data.cache_gigabytes", 3.0),
        ("data.workers", 8),
        ("parallel.timeout_seconds", 5),
        ("parallel.zero_stage", 1),
        ("parallel.tensor", 2),
        ("batch.micro", 2),
        ("stages.0.steps", 50),
        ("stages.0.steps", 3),
        ("stages.1.lr.peak", 0.5),
    ],
)
def test_may_change(key: str, value: Any) -> None:
    require_same_run(SAVED, changed(key, value), stage_index=0, steps_done=3)


@pytest.mark.parametrize(
    ("key", "value", "stage_index"),
    [
        ("seed", 9, 0),
        ("model.hidden", 64, 0),
        ("optimizer.clip", 2.0, 0),
        ("batch.sequences", 32, 0),
        ("data.crop_share", 0.5, 0),
        ("parallel.precision", "bf16", 0),
        ("stages.0.lr.peak", 0.5, 0),
        ("stages.0.steps", 6, 1),
        ("stages.0.steps", 2, 0),
    ],
)
def test_may_not_change(key: str, value: Any, stage_index: int) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        require_same_run(SAVED, changed(key, value), stage_index=stage_index, steps_done=3)
    assert "\n" not in str(caught.value)


def test_sources_may_move_but_not_weigh_differently() -> None:
    def of(*sources: dict[str, Any]) -> RunConfig:
        return RunConfig.model_validate(TREE | {"data": {"sources": sources}})

    saved = of({"path": "a", "weight": 2.0}, {"path": "b"}).model_dump(mode="json")
    require_same_run(saved, of({"path": "s3://a", "weight": 2.0}, {"path": "c"}), stage_index=0, steps_done=0)
    for other in [
        of({"path": "a", "weight": 3.0}, {"path": "b"}),
        of({"path": "a", "weight": 2.0}),
        of({"path": "a", "weight": 2.0}, {"path": "b", "epochs": 1}),
    ]:
        with pytest.raises(ConfigError, match=r"data\.sources\."):
            require_same_run(saved, other, stage_index=0, steps_done=0)


def test_a_stage_may_not_vanish() -> None:
    with pytest.raises(ConfigError, match=r"stages\.1"):
        require_same_run(
            SAVED, RunConfig.model_validate(TREE | {"stages": TREE["stages"][:1]}), stage_index=1, steps_done=1
        )
