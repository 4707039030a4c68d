"""A family that lives in another package: found as an entry point, trained, split, resumed, exported, and written with.

``tests/third_family`` holds it as pip would leave it: the package ``bigram`` and its metadata. No file of the project
names it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

pytestmark = pytest.mark.distributed

FAMILY = Path(__file__).resolve().parents[1] / "third_family"
STAGE = {"name": "bigram", "steps": 3, "train": ["mlp"], "lr": {"peak": 1e-2}}


def run(ranks: int, config: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return _called(tiny.command(ranks, tiny.ROOT / "launcher" / "train.py", "--config", config, *arguments))


def dualmask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _called([sys.executable, "-m", "launcher.command", *arguments])


def _called(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = tiny.environment()
    env["PYTHONPATH"] = os.pathsep.join([str(FAMILY), env["PYTHONPATH"]])
    return subprocess.run(command, env=env, cwd=tiny.ROOT, capture_output=True, text=True, timeout=300)


def write_config(folder: Path, data: Path, name: str, **parallel: Any) -> Path:
    path = tiny.write_config(folder, data, name, parallel=parallel, checkpoint={"every_steps": 1})
    tree = yaml.safe_load(path.read_text())
    model = {"family": "bigram", "hidden": 32, "heads": 4, "max_length": tiny.LENGTH, "widening": 3}
    tree["data"]["crop_share"] = 0.0  # the loss is a mean over full-length texts
    path.write_text(yaml.safe_dump(tree | {"model": model, "stages": [STAGE]}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by name: ZeRO 1 on one rank, tensor-parallel on two, and one that was cut short and went on."""
    folder = tmp_path_factory.mktemp("third")
    for name, ranks, parallel in (("one", 1, {"zero_stage": 1}), ("two", 2, {"zero_stage": 1, "tensor": 2})):
        done = run(ranks, write_config(folder, data, name, **parallel))
        assert done.returncode == 0, done.stderr[-3000:]
    return {name: folder / name for name in ("one", "two")}


def losses(output: Path) -> list[float]:
    return [line["losses"]["total"] for line in tiny.read_record(output)]


def test_tensor_parallel_ranks_learn_the_same(trained: dict[str, Path]) -> None:
    one, two = losses(trained["one"]), losses(trained["two"])
    assert len(one) == 3
    assert one[2] < one[0]
    assert two == pytest.approx(one, rel=1e-5)


def test_it_resumes_from_its_checkpoint(trained: dict[str, Path], data: Path) -> None:
    checkpoint = trained["one"] / "checkpoints" / "step-00000002"
    config = write_config(trained["one"].parent, data, "resumed", zero_stage=1)
    done = run(1, config, "--resume", checkpoint)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(trained["one"].parent / "resumed") == losses(trained["one"])[2:]


def test_it_is_exported_and_writes_text(trained: dict[str, Path], tmp_path: Path) -> None:
    exported = dualmask("export", str(trained["two"]), str(tmp_path / "model"))
    assert exported.returncode == 0, exported.stderr
    arguments = ("generate", "--model", str(tmp_path / "model"), "the", "--json", "--temperature", "0.9", "--seed", "2")
    written = dualmask(*arguments)
    assert written.returncode == 0, written.stderr
    trace = json.loads(written.stdout)
    assert trace["output"].startswith("the")
    assert len(trace["output"]) > len("the")
    assert dualmask(*arguments).stdout == written.stdout
    refused = dualmask(*arguments, "--growth", "3")
    assert refused.returncode == 2
    assert "--growth has no meaning for" in refused.stderr


def test_what_is_wrong_with_its_keys_is_named(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, data, "wrong", zero_stage=1)
    for override, words in (
        ("model.wideningg=2", "did you mean model.widening?"),
        ("stages.0.smoothing=2", "stages.0.smoothing = 2: should be less than or equal to 1"),
        ("stages.0.name=filler", "model.family=bigram has no stage name='filler': its stages are bigram"),
    ):
        done = run(1, config, "--set", override)
        assert done.returncode == 2
        assert words in done.stderr


def test_without_its_package_the_family_is_unknown(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, data, "unknown", zero_stage=1)
    done = tiny.train(1, config)
    assert done.returncode == 2
    assert "family='bigram' is not known: give dualmask, spanfusion, autoregressive, diffusion" in done.stderr
