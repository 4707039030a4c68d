"""The average of the weights over ranks: the same whatever part each keeps, over restarts, and as exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import warm
from safetensors.torch import load_file
from test_parity import TENSOR
from test_reshape import checkpoint

from dualmask.core import manifest
from dualmask.training.export import export

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

STAGES = [  # the average begins anew in the second
    tiny.CONFIG["stages"][0] | {"steps": 2},
    tiny.CONFIG["stages"][3] | {"steps": 4},
]
WHAT: dict[str, Any] = {
    "stages": STAGES,
    "optimizer": {"eps": 1e-4, "ema_decay": 0.9},
    "checkpoint": {"every_steps": 1, "keep_last": 99, "export": "average"},
}
ZERO = "parallel.zero_stage="
SHAPES = {
    "zero1": (2, [ZERO + "1"]),
    "zero2": (2, [ZERO + "2"]),
    "zero3": (2, [ZERO + "3"]),
    "tensor": (2, [ZERO + "3", TENSOR]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("average")


def run(ranks: int, data: Path, folder: Path, name: str, settings: list[str], *more: object) -> Path:
    """The exported weights."""
    config = tiny.write_config(folder, data, name, **WHAT)
    warm.train(ranks, config, *(f"--set={setting}" for setting in settings), *more)
    return folder / name / "export" / "model.safetensors"


@pytest.fixture(scope="module")
def one(data: Path, folder: Path) -> Path:
    return run(1, data, folder, "one", [ZERO + "0"])


def assert_close(mine: Path, theirs: Path) -> None:
    mine, theirs = load_file(mine), load_file(theirs)
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_parity_with_one_process(shape: str, one: Path, data: Path, folder: Path) -> None:
    ranks, settings = SHAPES[shape]
    assert_close(run(ranks, data, folder, shape, settings), one)


def test_restarts(one: Path, data: Path, folder: Path) -> None:
    """On as many ranks bit for bit, on others but for rounding."""
    whole = run(2, data, folder, "whole", [ZERO + "2"])
    middle = checkpoint(folder / "whole", 4)
    again = run(2, data, folder, "again", [ZERO + "2"], "--resume", middle)
    assert manifest.digest(again) == manifest.digest(whole)
    assert_close(run(2, data, folder, "reshaped", [ZERO + "3", TENSOR], "--resume", middle), one)


def test_either_can_be_exported(one: Path, folder: Path, tmp_path: Path) -> None:
    export(folder / "one", tmp_path / "average", weights="average")  # from the last checkpoint
    export(folder / "one", tmp_path / "last", weights="last")
    assert manifest.digest(tmp_path / "average" / "model.safetensors") == manifest.digest(one)
    last, average = load_file(tmp_path / "last" / "model.safetensors"), load_file(one)
    still = {name for name, value in average.items() if value.ndim == 2 and torch.equal(last[name], value)}
    assert still <= {"filler.hint.weight", "inserter.gone.weight"}  # begin at 0, and nothing is told in these stages


def test_what_is_not_there_is_not_exported(data: Path, folder: Path, tmp_path: Path) -> None:
    what = WHAT | {"optimizer": {}, "checkpoint": {"every_steps": 9}, "stages": STAGES[:1]}
    warm.train(1, tiny.write_config(folder, data, "without", **what))
    with pytest.raises(ValueError, match=r"holds no average, because optimizer\.ema_decay was not set"):
        export(folder / "without", tmp_path / "out", weights="average")
    assert not (tmp_path / "out").exists()
