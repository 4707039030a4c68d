"""Which weights a run begins with: the given ones, cut to this rank's share, and fresh ones where a module is new."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dualmask.nn.parallel import mesh
from dualmask.training.initial import begin_with


@pytest.fixture(autouse=True, scope="module")
def _one_process() -> None:
    mesh.single_process()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filler = nn.Linear(3, 4)
        self.gate = nn.Linear(4, 2)


def given(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"filler.weight": torch.ones(4, 3), "filler.bias": torch.ones(4)} | changed


def test_given_weights_are_taken_and_new_modules_stay_fresh() -> None:
    model = Model()
    weights, fresh = begin_with(model, given())
    assert fresh == ["gate"]
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert torch.equal(weights["filler.weight"], torch.ones(4, 3))
    assert torch.equal(weights["gate.weight"], model.gate.weight)


def test_without_weights_everything_is_fresh() -> None:
    model = Model()
    weights, fresh = begin_with(model, {})
    assert fresh == ["filler", "gate"]
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())


def test_weights_of_another_shape_or_half_a_module_are_refused() -> None:
    with pytest.raises(ValueError, match=r"filler\.weight has shape \(5, 3\) instead of \(4, 3\)"):
        begin_with(Model(), given(**{"filler.weight": torch.ones(5, 3)}))
    half = given()
    del half["filler.bias"]
    with pytest.raises(ValueError, match=r"lack filler\.bias"):
        begin_with(Model(), half)


def test_a_split_weight_is_cut_to_the_ranks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "tensor_size", lambda: 2)
    monkeypatch.setattr(mesh, "tensor_rank", lambda: 1)
    model = Model()
    model.filler.weight.tensor_model_parallel = True  # type: ignore[attr-defined]
    model.filler.weight.partition_dim = 0  # type: ignore[attr-defined]
    whole = torch.arange(24.0).view(8, 3)
    weights, _ = begin_with(model, given(**{"filler.weight": whole}))
    assert torch.equal(weights["filler.weight"], whole[4:])
