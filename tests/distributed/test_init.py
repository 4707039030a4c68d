"""`init:` of a run's file: it begins with the weights of an exported folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from dualmask.config.load import load_run
from dualmask.families.edit.model import DualMask
from dualmask.nn.parallel import mesh
from dualmask.training.export import write_export
from dualmask.training.tensor_file import Tensors

STAGES = [tiny.CONFIG["stages"][1] | {"start_from": {}, "steps": 2}]  # trains the inserter only


@pytest.fixture(scope="module")
def init(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model that has no Gate yet."""
    folder = tmp_path_factory.mktemp("init")
    run = load_run(tiny.write_config(folder, data))
    mesh.single_process()
    torch.manual_seed(11)
    weights = {name: value.detach() for name, value in DualMask(run.model, tiny.VOCAB).named_parameters()}
    kept = {name: value for name, value in weights.items() if not name.startswith("gate.")}
    write_export(folder / "model", Tensors.of(kept), run.model, tiny.VOCAB, data / "tokenizer.model")
    return folder / "model"


@pytest.mark.distributed
def test_two_tensor_parallel_ranks_begin_with_what_one_export_holds(data: Path, init: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, data, stages=STAGES, init=str(init), parallel={"tensor": 2})
    done = tiny.train(2, config)
    assert done.returncode == 0, done.stderr
    assert f"init: {init} holds no gate: begun anew" in done.stderr
    before, after = load_file(init / "model.safetensors"), load_file(tmp_path / "tiny/export/model.safetensors")
    assert any(name.startswith("gate.") for name in after)
    for name, value in before.items():
        learns = name.startswith("inserter.") and name != "inserter.gone.weight"  # of which nothing is told here
        assert torch.equal(after[name], value) == (not learns), name


@pytest.mark.distributed
def test_what_does_not_fit_is_one_line(data: Path, init: Path, tmp_path: Path) -> None:
    def complaint(**changes: object) -> str:
        done = tiny.train(1, tiny.write_config(tmp_path, data, stages=STAGES, **changes), "--dry-run")
        assert done.returncode == 2
        return done.stderr

    assert "model folder /nowhere does not exist" in complaint(init="/nowhere")
    wide = complaint(init=str(init), model={"hidden": 64})
    assert f"model.hidden=64 differs from 32 of init={init}: set it to that" in wide
