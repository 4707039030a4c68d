"""An optimizer on the host learns what one on the device learns, and its checkpoints hold all that it keeps.

CPU ranks have one memory, but DeepSpeed takes the paths of offloading all the same: gradients are copied into buffers
of their own, and the optimizer steps on these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import warm
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

CHECKPOINT = {"every_steps": 4, "keep_last": 99}
OFFLOAD = "--set=parallel.offload=optimizer"
VARIANTS = {
    "zero1": ["--set=parallel.zero_stage=1"],
    "zero2-micro": ["--set=parallel.zero_stage=2", "--set=batch.micro=2"],
    "zero3": ["--set=parallel.zero_stage=3"],
    "muon-zero1": ["--set=parallel.zero_stage=1", "--set=optimizer.name=muon"],
    "muon-zero3": ["--set=parallel.zero_stage=3", "--set=optimizer.name=muon"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offload")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, data: Path, folder: Path) -> tuple[str, list[str]]:
    """Its name and settings, trained with and without."""
    name, settings = request.param, VARIANTS[request.param]
    for suffix, more in (("off", []), ("on", [OFFLOAD])):
        warm.train(2, tiny.write_config(folder, data, f"{name}-{suffix}", checkpoint=CHECKPOINT), *settings, *more)
    return name, settings


def losses(record: list[dict[str, Any]]) -> list[float]:
    return [line["losses"]["total"] for line in record]


def test_learns_the_same(variant: tuple[str, list[str]], folder: Path) -> None:
    name, _ = variant
    on, off = (tiny.read_record(folder / f"{name}-{suffix}") for suffix in ("on", "off"))
    assert losses(on) == pytest.approx(losses(off), rel=0, abs=1e-5)
    norms = [[line["grad_norm"] for line in record] for record in (on, off)]
    assert norms[0] == pytest.approx(norms[1], rel=3e-5)
    weights, expected = (load_file(folder / f"{name}-{end}" / "export/model.safetensors") for end in ("on", "off"))
    assert max(float((weights[key] - expected[key]).abs().max()) for key in expected) < 1e-5


def test_goes_on_bit_for_bit(variant: tuple[str, list[str]], data: Path, folder: Path) -> None:
    name, settings = variant
    config = tiny.write_config(folder, data, f"{name}-again", checkpoint=CHECKPOINT)
    middle = folder / f"{name}-on" / "checkpoints" / "step-00000004"
    warm.train(2, config, *settings, OFFLOAD, "--resume", middle)
    assert tiny.read_record(folder / f"{name}-again") == tiny.read_record(folder / f"{name}-on")[4:]


def test_a_device_goes_on_where_a_host_stopped(variant: tuple[str, list[str]], data: Path, folder: Path) -> None:
    """Its checkpoint has every weight and moment; weights alone would let Adam begin anew."""
    name, settings = variant
    config = tiny.write_config(folder, data, f"{name}-back", checkpoint=CHECKPOINT)
    warm.train(2, config, *settings, "--resume", folder / f"{name}-on" / "checkpoints" / "step-00000004")
    expected = losses(tiny.read_record(folder / f"{name}-off"))[4:]
    assert losses(tiny.read_record(folder / f"{name}-back")) == pytest.approx(expected, rel=0, abs=1e-5)
