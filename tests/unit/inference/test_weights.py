"""How weights are stored, and how near the model stays to what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dualmask.inference.folder import WEIGHTS
from dualmask.inference.loading import load
from dualmask.inference.weights import decode, encode
from dualmask.training.export import export


def stored(weights: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    return {part: tensor for name, weight in weights.items() for part, tensor in encode(name, weight, how)}


def test_int8_is_within_half_a_step_of_each_row() -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 10, 1, 0])[:, None]
    held = stored({"a.weight": weight, "a.bias": weight[0]}, "int8")
    assert held["a.weight"].dtype == torch.int8
    read = decode(held)
    assert read.keys() == {"a.weight", "a.bias"}
    assert torch.equal(read["a.bias"], weight[0])
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((read["a.weight"] - weight).abs() <= step * 0.5001).all()
    assert torch.equal(read["a.weight"][4], torch.zeros(64))


def test_a_weight_that_is_called_scale_stays() -> None:
    weights = {"norm.scale": torch.ones(3), "norm": torch.ones(2, 2)}
    assert decode({"norm.scale": torch.ones(3)}).keys() == {"norm.scale"}
    assert stored(weights, "float32").keys() == weights.keys()


@pytest.mark.parametrize(("how", "smaller", "near"), [("bfloat16", 1.9, 0.01), ("int8", 2.5, 0.02)])
def test_an_export_that_is_stored_smaller_loads_as_nearly_the_same_model(
    model_folder: Path, tmp_path: Path, how: str, smaller: float, near: float
) -> None:
    export(model_folder, tmp_path / "small", stored=how)
    files = [folder / "model.safetensors" for folder in (model_folder, tmp_path / "small")]
    assert files[0].stat().st_size / files[1].stat().st_size > smaller
    before, after = (dict(load(file.parent, "cpu").model.named_parameters()) for file in files)
    for name, weight in before.items():
        assert after[name].dtype == torch.float32
        assert (after[name] - weight).norm() <= near * weight.norm(), name


def test_an_export_of_one_kind_becomes_another(model_folder: Path, tmp_path: Path) -> None:
    export(model_folder, tmp_path / "int8", stored="int8")
    export(tmp_path / "int8", tmp_path / "copy")
    export(tmp_path / "int8", tmp_path / "whole", stored="float32")
    assert load_file(tmp_path / "copy" / WEIGHTS)["table.weight"].dtype == torch.int8
    assert all(tensor.dtype == torch.float32 for tensor in load_file(tmp_path / "whole" / WEIGHTS).values())
    one, other = (dict(load(tmp_path / name, "cpu").model.named_parameters()) for name in ("int8", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
