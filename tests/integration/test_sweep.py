"""Two trials of a sweep, from the command to the table: real training processes, one run above theirs in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from mlflow.tracking import MlflowClient

from dualmask.training.metrics import read_evals
from launcher import sweep


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    data = tiny.make_data(folder / "data", dev=8)
    stage = tiny.CONFIG["stages"][0] | {"steps": 6, "lr": {"peak": 1e-3}}
    tracking = {"enabled": True, "uri": f"sqlite:///{folder}/runs/mlflow.db", "system_metrics": False}
    judged = {"every_steps": 2, "sequences": 8}
    return tiny.write_config(folder, data, stages=[stage], tracking=tracking, eval=judged)


def space(folder: Path, tree: object) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.slow
def test_two_trials(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One learns and one does not: the latter falls behind and is stopped."""
    rates = space(config.parent, {"stages.0.lr.peak": {"grid": [1e-2, 1e-30]}})
    arguments = ["--config", str(config), "--space", str(rates), "--samples", "1", "--grace", "2"]
    assert sweep.main(arguments) == 0
    out = config.with_name("tiny-sweep")
    result = json.loads((out / "sweep.json").read_text())
    assert [trial["status"] for trial in result["trials"]] == ["complete", "stopped"]
    best = result["trials"][0]
    assert result["best"] == best["keys"]
    assert result["value"] == min(e["eval"]["dev_loss"] for e in read_evals(Path(best["output"]) / "metrics.jsonl"))
    assert result["trials"][1]["value"] > result["value"]
    assert list((Path(result["trials"][1]["output"]) / "checkpoints").glob("step-*")), "it can go on"
    printed = capsys.readouterr().out
    assert "dev_loss on the dev part" in printed
    assert f"best: --set stages.0.lr.peak={json.dumps(best['keys']['stages.0.lr.peak'])}" in printed
    client = MlflowClient(f"sqlite:///{config.parent}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("dualmask").experiment_id])
    (above,) = (run for run in runs if run.info.run_name == "tiny-sweep")
    below = {run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == above.info.run_id}
    assert below == {"tiny-trial-00000", "tiny-trial-00001"}
    assert above.data.metrics["dev/loss"] == result["value"]
    assert above.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"stages.0.lr.peek": {"choice": [1e-3]}}, "stages.0.lr.peek is not a key; did you mean stages.0.lr.peak?"),
        ({"stages.0.lr.peak": {"uniform": [1e-3, -1]}}, "give two numbers, the lower first"),
        ({"stages.0.lr.peak": {"loguniform": [0, 1]}}, "give two numbers above 0, the lower first"),
        ({"stages.0.lr.peak": {"uniform": [-1, 1]}}, "stages.0.lr.peak = -1: should be greater than 0"),
        ({"stages.0.lr.peak": [1e-3, 1e-2]}, "give {loguniform|uniform|choice|grid: [...]}"),
        ([], "lines"),
    ],
)
def test_a_space_that_cannot_be_searched(
    tree: object, complaint: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(config), "--space", str(space(tmp_path, tree)), "--out", str(tmp_path / "out")]
    assert sweep.main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_ray_is_not_imported_before_it_is_told_to_listen_on_the_loopback_interface_only() -> None:
    code = "import sys, launcher.sweep; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=tiny.environment(), cwd=tiny.ROOT, check=True)


def test_a_run_that_is_not_judged(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = space(tmp_path, {"stages.0.lr.peak": {"choice": [1e-3, 1e-2]}})
    arguments = ["--config", str(config), "--space", str(rates)]
    assert sweep.main([*arguments, "--set", "eval.every_steps=null"]) == 2
    assert "set eval.every_steps" in capsys.readouterr().err
    assert sweep.main([*arguments, "--metric", "accuracy"]) == 2
    assert "--metric accuracy is not measured in family dualmask: give dev_loss" in capsys.readouterr().err
