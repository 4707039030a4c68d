"""Muon over ranks: whatever part of a matrix a rank keeps, it learns as a single process does, and resumes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import test_parity
import tiny
import warm
from test_parity import SPLIT_ALL, TENSOR
from test_reshape import assert_same, checkpoint

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

STAGES = [
    tiny.CONFIG["stages"][0] | {"steps": 2},
    tiny.CONFIG["stages"][3] | {"steps": 4},  # all modules
]
WHAT: dict[str, Any] = {"stages": STAGES, "optimizer": {"name": "muon", "eps": 1e-4}}
TWO_RANKS = {
    "zero3": {"set": [], "deepspeed": SPLIT_ALL},
    "zero3_parts_of_groups": {"set": [], "deepspeed": {"zero_optimization": {"sub_group_size": 1500}}},
    "zero2": {"set": ["parallel.zero_stage=2"]},
    "zero1_accumulation": {"set": ["parallel.zero_stage=1", "batch.micro=2"]},
    "zero0": {"set": ["parallel.zero_stage=0"]},
}
FOUR_RANKS = {
    "tp2_zero3": {"set": [TENSOR], "deepspeed": SPLIT_ALL},
    "tp2_zero1": {"set": [TENSOR, "parallel.zero_stage=1"]},
    "tp2_zero0": {"set": [TENSOR, "parallel.zero_stage=0"]},
}


def train(ranks: int, tensor: int, variants: dict, data: Path, folder: Path) -> dict[str, dict]:
    return test_parity.run_variants(ranks, tensor, variants, data, folder, **WHAT)


@pytest.fixture(scope="module")
def seen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """By variant; "one" is a single process without ZeRO."""
    one, two, four = (tmp_path_factory.mktemp(name) for name in ("one", "two", "four"))
    results = train(1, 1, {"one": {"set": ["parallel.zero_stage=0"]}}, data, one)
    return results | train(2, 1, TWO_RANKS, data, two) | train(4, 2, FOUR_RANKS, data, four)


@pytest.mark.parametrize("variant", [*TWO_RANKS, *FOUR_RANKS])
def test_parity_with_one_process(variant: str, seen: dict[str, dict]) -> None:
    reference = test_parity.plain.Trained(**seen["one"])
    test_parity.assert_same(seen[variant], reference)


# (ranks, settings, step that it goes on from)
ATTEMPTS = {
    "one": (1, ["parallel.zero_stage=0"], 1),
    "tensor": (2, [TENSOR, "parallel.zero_stage=3"], 3),
    "many": (4, [TENSOR, "parallel.zero_stage=2"], 4),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("muon")


def run(ranks: int, data: Path, folder: Path, name: str, settings: list[str], *more: object) -> list[dict[str, Any]]:
    config = tiny.write_config(folder, data, name, **WHAT, checkpoint={"every_steps": 1, "keep_last": 99})
    warm.train(ranks, config, *(f"--set={setting}" for setting in settings), *more)
    return tiny.read_record(folder / name)


@pytest.fixture(scope="module")
def staying(data: Path, folder: Path) -> list[dict[str, Any]]:
    return run(2, data, folder, "staying", ["parallel.zero_stage=1"])


def test_ranks_change_at_restarts(staying: list[dict[str, Any]], data: Path, folder: Path) -> None:
    before = "staying"
    for name, (ranks, settings, step) in ATTEMPTS.items():
        record = run(ranks, data, folder, name, settings, "--resume", checkpoint(folder / before, step))
        assert_same(record, staying[step:])
        before = name


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_resumed_bit_for_bit(zero_stage: int, data: Path, folder: Path) -> None:
    setting = f"parallel.zero_stage={zero_stage}"
    whole = run(2, data, folder, f"whole-{zero_stage}", [setting])
    middle = checkpoint(folder / f"whole-{zero_stage}", 4)
    assert run(2, data, folder, f"again-{zero_stage}", [setting], "--resume", middle) == whole[4:]
