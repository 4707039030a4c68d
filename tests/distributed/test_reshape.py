"""A run whose ranks change at restarts: other tensor-parallel degrees, other numbers of ranks, other ZeRO stages,
a single process, and one folder of whole tensors. Its losses and weights are those of a run that never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file

from dualmask.inference.loading import load
from dualmask.training.export import export

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

TENSOR = "parallel.tensor=2"
KEEP_ALL = {"every_steps": 2, "keep_last": 99}
# (ranks, settings, step that it goes on from): across the borders of stages and in the middle of them
ATTEMPTS = {
    "tp1-dp2-zero1": (2, ["parallel.zero_stage=1"], 2),
    "tp2-dp1-zero3": (2, [TENSOR, "parallel.activation_checkpointing=true"], 6),
    "tp1-dp1-zero0": (1, ["parallel.zero_stage=0", "batch.micro=4"], 12),
    "tp2-dp2-zero2": (4, [TENSOR, "parallel.zero_stage=2"], 14),
}


def train(ranks: int, config: Path, settings: list[str], *more: object) -> str:
    processes = tiny.start_ranks(ranks, config, *(f"--set={setting}" for setting in settings), *more)
    said = processes[0].communicate(timeout=200)[0]
    assert tiny.finish(processes) == [0] * ranks, said[-4000:]
    return said


def checkpoint(output: Path, step: int) -> Path:
    return output / "checkpoints" / f"step-{step:08d}"


def assert_same(record: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for key in ("step", "stage", "tokens", "lr"):
        assert [line[key] for line in record] == [line[key] for line in expected]
    losses, reference = ([line["losses"]["total"] for line in lines] for lines in (record, expected))
    assert losses == pytest.approx(reference, rel=0, abs=1e-5)
    norms, reference = ([line["grad_norm"] for line in lines] for lines in (record, expected))
    assert norms == pytest.approx(reference, rel=3e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reshape")


@pytest.fixture(scope="module")
def staying(data: Path, folder: Path) -> list[dict[str, Any]]:
    """The record of TP 2 × DP 2 under ZeRO-3 all the way."""
    train(4, tiny.write_config(folder, data, "staying", checkpoint=KEEP_ALL), [TENSOR])
    return tiny.read_record(folder / "staying")


@pytest.fixture(scope="module")
def attempts(staying: list[dict[str, Any]], data: Path, folder: Path) -> dict[str, str]:
    """Runs each attempt from a checkpoint of the one before; returns their outputs."""
    before, said = "staying", {}
    for name, (ranks, settings, step) in ATTEMPTS.items():
        config = tiny.write_config(folder, data, name, checkpoint=KEEP_ALL)
        said[name] = train(ranks, config, settings, "--resume", checkpoint(folder / before, step))
        before = name
    return said


@pytest.mark.parametrize("name", ATTEMPTS)
def test_learns_what_it_learns_without_change(
    name: str, attempts: dict[str, str], staying: list[dict[str, Any]], folder: Path
) -> None:
    ranks, settings, step = ATTEMPTS[name]
    assert_same(tiny.read_record(folder / name), staying[step:])
    tensor = 2 if TENSOR in settings else 1
    assert f"taken over by {ranks // tensor} data-parallel × {tensor} tensor-parallel" in attempts[name]
    weights, expected = (load_file(folder / run / "export/model.safetensors") for run in (name, "staying"))
    assert weights.keys() == expected.keys()
    assert max(float((weights[key] - expected[key]).abs().max()) for key in weights) < 1e-5


def test_through_an_export(attempts: dict[str, str], staying: list[dict[str, Any]], data: Path, folder: Path) -> None:
    """The checkpoint of four ranks as one folder, which is a model and is resumed by one process."""
    export(checkpoint(folder / "staying", 8), folder / "exported", training=True)
    assert [path.name for path in (folder / "exported" / "training" / "shards").iterdir()] == ["rank-00000.safetensors"]
    load(folder / "exported", "cpu")
    config = tiny.write_config(folder, data, "imported", checkpoint=KEEP_ALL)
    said = train(1, config, ["parallel.zero_stage=1"], "--resume", folder / "exported")
    assert "made by 1 data-parallel × 1 tensor-parallel" not in said
    assert_same(tiny.read_record(folder / "imported"), staying[8:])
