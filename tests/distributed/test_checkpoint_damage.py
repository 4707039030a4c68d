"""Damaged checkpoints are named, set aside, and never loaded; the one before takes their place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from dualmask import manifest
from dualmask.export import export

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(configuration, output) of a run in one process."""
    folder = tmp_path_factory.mktemp("damage")
    config = tiny.write_config(folder, data, checkpoint={"every_steps": 2, "keep_last": 3})
    done = tiny.train(1, config)
    assert done.returncode == 0, done.stderr
    return config, folder / "tiny"


def test_falls_back(finished: tuple[Path, Path], tmp_path: Path) -> None:
    config, output = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "export")
    newest, second, *_ = sorted((copy / "checkpoints").iterdir(), reverse=True)
    broken = tiny.largest_file(newest), "state.json"
    tiny.damage(newest, broken[0], truncate=True)
    tiny.damage(second, broken[1], truncate=False)
    done = tiny.train(1, config, "--set", f"output={copy}")
    assert done.returncode == 0, done.stderr
    for folder, file in zip((newest, second), broken, strict=True):
        assert f"checkpoint {folder} is set aside: {file}" in done.stderr
        assert folder.with_name(f"{folder.name}.broken").is_dir()
    assert tiny.read_record(copy) == tiny.read_record(output)
    assert manifest.digest(copy / "export/model.safetensors") == manifest.digest(output / "export/model.safetensors")


def test_export_from_a_checkpoint(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """The same bytes as the export that the run made itself."""
    _, output = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "export")
    export(copy, tmp_path / "made")
    export(output, tmp_path / "copied")
    for name in manifest.files_of(output / "export"):
        assert (tmp_path / "made" / name).read_bytes() == (output / "export" / name).read_bytes(), name
        assert (tmp_path / "copied" / name).read_bytes() == (output / "export" / name).read_bytes(), name


def test_disk_full(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint that cannot be written ends the run with one line; the ones before it are intact, and suffice."""
    config, output = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    before = {path.name for path in (copy / "checkpoints").iterdir()}
    longer = ["--config", str(config), "--set", f"output={copy}", "--set", "stages.3.steps=4"]
    command = [sys.executable, str(tiny.ROOT / "launcher" / "train.py"), *longer]
    small_files = ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash", *command]  # KiB a file
    surroundings = {"env": tiny.environment(), "cwd": tiny.ROOT, "capture_output": True, "text": True}
    done = subprocess.run(small_files, timeout=120, **surroundings)
    assert done.returncode == 1
    assert "could not be written, those before it are intact" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (copy / "checkpoints").glob("step-*")} == before
    assert tiny.train(1, config, *longer[2:]).returncode == 0
    assert len(tiny.read_record(copy)) == tiny.STEPS + 2


def test_export_refuses_damage(finished: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    tiny.damage(copy / "export", "model.safetensors", truncate=False)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        export(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tensor_parallel_export(data: Path, tmp_path: Path) -> None:
    """ZeRO-3 over two ranks of two slices each: merged in one process to what the four ranks exported together."""
    config = tiny.write_config(tmp_path, data, parallel={"tensor": 2})
    done = tiny.train(4, config)
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "tiny" / "export"
    together = manifest.digest(made / "model.safetensors")
    shutil.rmtree(made)
    export(tmp_path / "tiny", tmp_path / "merged")
    assert manifest.digest(tmp_path / "merged" / "model.safetensors") == together
