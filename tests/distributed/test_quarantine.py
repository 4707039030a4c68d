"""A damaged shard is named, listed and left out by every rank; training goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_training_goes_on_without_a_damaged_shard(data: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    shard = broken / "train-000001.tar"
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-700])
    else:
        shutil.copyfile(broken / "train-000000.tar", shard)  # a sound shard, but not the one of the manifest
    config = tiny.write_config(tmp_path, broken)
    done = tiny.train(2, config)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train-000001.tar is left out") == 1
    listed = [json.loads(line) for line in (tmp_path / "tiny" / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["file"] for entry in listed] == ["train-000001.tar"]
    assert len(tiny.read_record(tmp_path / "tiny")) == tiny.STEPS


def test_nothing_but_damaged_shards_is_an_error_of_one_line(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    for shard in broken.glob("train-*.tar"):
        shard.write_bytes(b"not a tar file")
    done = tiny.train(1, tiny.write_config(tmp_path, broken))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "train" in last
    assert "Traceback" not in done.stderr
