"""Where weights come from: what is drawn does not depend on how it is shared, and files are read range by range."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dualmask.inference.weights import decode, encode
from dualmask.nn import initial
from dualmask.nn.parallel import mesh
from dualmask.nn.slices import Slice
from dualmask.training import tensor_file
from dualmask.training.shards import FlatRange
from dualmask.training.sources import Drawn, Exported
from dualmask.training.tensor_file import Form, Tensors


@pytest.fixture(autouse=True, scope="module")
def _one_process() -> None:
    mesh.single_process()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filler = nn.Linear(6, 8)
        self.gate = nn.Linear(4, 2)
        self.trust = initial.parameter([1.0, -0.5, 0.5])


def parts(whole: torch.Tensor, axis: int | None, size: int) -> list[tuple[FlatRange, torch.Tensor]]:
    """Every range of three elements, of every slice, and what it holds."""
    found = []
    for rank, own in enumerate(whole.chunk(size, axis) if axis is not None else [whole]):
        for start in range(0, own.numel(), 3):
            count = min(3, own.numel() - start)
            flat_range = FlatRange("model.filler.weight", tuple(own.shape), axis, rank, start, count)
            found.append((flat_range, own.flatten()[start : start + count]))
    return found


SPLITS = [*product((0, 1), (1, 2)), (None, 1)]


@pytest.mark.parametrize(("axis", "size"), SPLITS)
def test_a_drawn_part_is_that_part_of_the_whole(axis: int | None, size: int) -> None:
    model = Model()
    initial.fill(model, seed=5)
    drawn = Drawn(model, seed=5)
    for flat_range, expected in parts(model.filler.weight.detach(), axis, size):
        assert torch.equal(drawn.part(flat_range, size), expected)


@pytest.mark.parametrize(("axis", "size"), SPLITS)
def test_a_part_of_an_exported_file(axis: int | None, size: int, tmp_path: Path) -> None:
    whole = torch.arange(48.0).view(8, 6)
    save_file({"filler.weight": whole, "filler.bias": torch.ones(8)}, tmp_path / "w.safetensors")
    model = Model()
    given = Exported(tmp_path / "w.safetensors", model, otherwise=Drawn(model, seed=5))
    assert given.fresh == ["gate", "trust"]
    for flat_range, expected in parts(whole, axis, size):
        assert torch.equal(given.part(flat_range, size), expected)
    fresh = given.part(FlatRange("model.trust", (3,), None, 0, 1, 2), size)
    assert fresh.tolist() == [-0.5, 0.5]


def test_weights_of_another_shape_or_half_a_module_are_refused(tmp_path: Path) -> None:
    model, file = Model(), tmp_path / "w.safetensors"
    save_file({"filler.weight": torch.ones(5, 6), "filler.bias": torch.ones(8)}, file)
    with pytest.raises(ValueError, match=r"filler\.weight has shape \(5, 6\) instead of \(8, 6\)"):
        Exported(file, model, otherwise=Drawn(model, seed=5))
    save_file({"filler.weight": torch.ones(8, 6)}, file)
    with pytest.raises(ValueError, match=r"lack filler\.bias"):
        Exported(file, model, otherwise=Drawn(model, seed=5))


def test_draws_have_the_moments_of_their_rules() -> None:
    index = torch.arange(200_000)
    normal = initial.draw(initial.Normal(0.5), 1, "a", index)
    assert abs(normal.mean()) < 0.005
    assert abs(normal.std() - 0.5) < 0.005
    assert abs((normal.abs() < 0.5).float().mean() - 0.6827) < 0.005
    uniform = initial.draw(initial.Uniform(2.0), 1, "a", index)
    assert -2 < uniform.min() < -1.99
    assert 1.99 < uniform.max() < 2
    assert abs(uniform.mean()) < 0.01
    assert not torch.equal(normal, initial.draw(initial.Normal(0.5), 1, "b", index))
    assert not torch.equal(normal, initial.draw(initial.Normal(0.5), 2, "a", index))
    assert abs(torch.corrcoef(torch.stack([normal[1:], normal[:-1]]))[0, 1]) < 0.01


def test_a_parameter_without_a_rule_is_named() -> None:
    model = Model()
    model.other = nn.Conv1d(2, 2, 1)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"other\.weight: nothing says what it begins with"):
        Drawn(model, seed=5)


def test_places_of_a_slice() -> None:
    assert Slice((2, 3), 1, 1, 2).places(2, 3).tolist() == [5, 9, 10]
    assert Slice((2, 3), 0, 1, 2).places(2, 3).tolist() == [8, 9, 10]
    assert Slice((2, 3), 1, 1, 2).whole == (2, 6)


def test_a_file_written_tensor_by_tensor_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(4).bfloat16(), "c": torch.empty(0), "d": torch.tensor(1.5)}
    file = tmp_path / "x.safetensors"
    tensor_file.write(file, Tensors.of(tensors))
    read = load_file(file)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items())
    for stream, message in (([], "a was announced"), ([("a", torch.ones(2))], "a .* is not what was announced")):
        with pytest.raises(ValueError, match=message):
            tensor_file.write(file, Tensors({"a": Form((3,))}, stream))


@pytest.mark.parametrize(("size", "axis"), [(1, 0), (2, 0), (2, 1)])
def test_a_model_begins_with_weights_that_are_stored_as_int8(tmp_path: Path, size: int, axis: int) -> None:
    model = Model()
    weights = dict(model.named_parameters())
    file = tmp_path / "x.safetensors"
    save_file({part: each for name in weights for part, each in encode(name, weights[name].data, "int8")}, file)
    whole = decode(load_file(file))["filler.weight"]
    source = Exported(file, model, Drawn(model, seed=1))
    assert source.fresh == []
    for flat_range, expected in parts(whole, axis, size):
        assert torch.equal(source.part(replace(flat_range, name="filler.weight"), size), expected)
