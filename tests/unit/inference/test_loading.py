import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dualmask.core import manifest
from dualmask.inference.folder import ModelFolderError, open_folder
from dualmask.inference.loading import load


def test_an_export_and_a_run_that_holds_one_load_alike(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "run" / "export")
    export, run = load(model_folder, "cpu"), load(tmp_path / "run", "cpu")
    assert export.config == run.config
    assert export.tokenizer.digest == run.tokenizer.digest
    for (name, one), (_, other) in zip(export.model.named_parameters(), run.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def change_config(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tree = json.loads((folder / "config.json").read_text())
        change(tree)
        (folder / "config.json").write_text(json.dumps(tree))
        (folder / manifest.NAME).unlink()
        manifest.seal(folder)

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "model.safetensors is damaged"),
        (truncate, "model.safetensors has .* bytes instead of"),
        (lambda folder: (folder / manifest.NAME).unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "tokenizer.model is missing"),
        (lambda folder: (folder / "extra.pt").write_bytes(b"x"), "extra.pt is foreign"),
        (change_config(lambda tree: tree.update(format=7)), "format 7"),
        (change_config(lambda tree: tree.update(model={"hidden": -1})), "model.hidden"),
        (change_config(lambda tree: tree.update(vocab_size=99)), "512 pieces, the model 99"),
        (change_config(lambda tree: tree["model"].update(hidden=64)), "has shape"),
        (change_config(lambda tree: tree["model"].update(filler_layers=2)), "is missing"),
        (change_config(lambda tree: tree.clear()), "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(model_folder: Path, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model_folder, folder)
    damage(folder)
    with pytest.raises(ModelFolderError, match=words) as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match="not a model folder"):
        open_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelFolderError, match="dualmask export"):
        open_folder(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFolderError, match="is a file"):
        open_folder(tmp_path / "file")


def test_devices(model_folder: Path) -> None:
    with pytest.raises(ValueError, match="device 'tpu'"):
        load(model_folder, "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            load(model_folder, "cuda")
