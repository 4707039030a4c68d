"""What is exported from a checkpoint is what the run exports itself; what is damaged is not exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import warm

from dualmask.core import manifest
from dualmask.training.export import export

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run in one process."""
    folder = tmp_path_factory.mktemp("damage")
    warm.train(1, tiny.write_config(folder, data))
    return folder / "tiny"


def test_export_from_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    """The same bytes as the export that the run made itself."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "export")
    export(copy, tmp_path / "made")
    export(finished, tmp_path / "copied")
    for name in manifest.files_of(finished / "export"):
        assert (tmp_path / "made" / name).read_bytes() == (finished / "export" / name).read_bytes(), name
        assert (tmp_path / "copied" / name).read_bytes() == (finished / "export" / name).read_bytes(), name


def test_export_refuses_damage(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    weights = bytearray((copy / "export" / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "export" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        export(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tensor_parallel_export(data: Path, tmp_path: Path) -> None:
    """ZeRO-3 over two ranks of two slices each: merged in one process to what the four ranks exported together."""
    warm.train(4, tiny.write_config(tmp_path, data, parallel={"tensor": 2}))
    made = tmp_path / "tiny" / "export"
    together = manifest.digest(made / "model.safetensors")
    shutil.rmtree(made)
    export(tmp_path / "tiny", tmp_path / "merged")
    assert manifest.digest(tmp_path / "merged" / "model.safetensors") == together
