"""A run over two weighted sources, one of them in an object store: recorded, resumed by other ranks and from a disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from object_store import serving

from data_pipeline.manifest import Manifest
from data_pipeline.tables import Shards

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data without its first shard."""
    folder = Path(shutil.copytree(data, tmp_path_factory.mktemp("half") / "half"))
    manifest = Manifest.load(folder)
    split = manifest.split("train")
    rest = split.model_copy(update={"rows": split.shards[1].rows, "shards": Shards.of(split.shards[1:])})
    manifest.model_copy(update={"splits": {"train": rest}}).save(folder)
    (folder / "train-000000.tar").unlink()
    return folder


def write_config(folder: Path, name: str, paths: tuple[object, object], **changes: object) -> Path:
    config = tiny.write_config(folder, folder, name, **changes)
    tree = yaml.safe_load(config.read_text())
    tree["data"] = {"sources": [{"path": str(paths[0]), "weight": 2}, {"path": str(paths[1]), "epochs": 1}]}
    config.write_text(yaml.safe_dump(tree))
    return config


def test_sources_in_an_object_store_and_on_a_disk(data: Path, half: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(half, faults=0.3, slow=0.1) as address:
        whole = write_config(tmp_path, "whole", (data, address), checkpoint={"every_steps": 6, "keep_last": 9})
        done = tiny.train(2, whole)
    assert done.returncode == 0, done.stderr
    record = tiny.read_record(tmp_path / "whole")
    assert len(record) == tiny.STEPS
    local = write_config(tmp_path, "local", (data, half))
    oldest = min((tmp_path / "whole" / "checkpoints").glob("step-*"))
    done = tiny.train(1, local, "--resume", oldest)
    assert done.returncode == 0, done.stderr
    first = int(oldest.name.removeprefix("step-"))
    rest = tiny.read_record(tmp_path / "local")
    assert 0 < first < len(record)
    assert len(rest) == len(record) - first
    for before, after in zip(record[first:], rest, strict=True):
        assert after["losses"]["total"] == pytest.approx(before["losses"]["total"], abs=1e-4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["data.sources.0.epochs=1"], "data.sources have 192 in all their epochs: raise epochs"),
        (["data.path=elsewhere"], "data.path=elsewhere excludes data.sources: remove one of them"),
        (["data.sources.1.path=nowhere"], "no data at nowhere: manifest.json is missing"),
        (["data.sources.1.wieght=2"], "did you mean data.sources.1.weight?"),
    ],
)
def test_what_cannot_work_is_one_line(data: Path, half: Path, tmp_path: Path, keys: list[str], said: str) -> None:
    config = write_config(tmp_path, "wrong", (data, half), batch={"sequences": 64})
    done = tiny.train(1, config, *(f"--set={key}" for key in keys))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
