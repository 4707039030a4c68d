"""A run that is made to collapse says so, and may end; its twin at a fair price does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.distributed

STEPS, IN_A_ROW = 24, 8


def config(folder: Path, data: Path, name: str, gate_cost: float) -> Path:
    """A stage in which wrong tokens are found by label, so that only its price speaks against editing."""
    joint: dict[str, Any] = {
        "name": "joint",
        "steps": STEPS,
        "train": ["filler", "inserter", "picker", "gate"],
        "lr": {"peak": 3e-3, "decay": "constant"},
        "lr_scale": {"gate": 3},
        "losses": {"ptr_count": 1, "keep_recover": 1, "keep_oracle": 1, "gate": 1, "gate_cost": gate_cost},
        "rollout": {
            "first_round": "gate",
            "starts": {"rewrite": 0.2, "corrupted": 0.4, "clean": 0.4},
            "teacher_forced_deletions": 1,
        },
    }
    return tiny.write_config(
        folder,
        data,
        name,
        stages=[joint],
        alarms={"steps": IN_A_ROW, "keep_std": 1e-3, "stop": True},
        tracking={"enabled": name == "dear", "uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False},
    )


def test_a_gate_that_closes_for_good(data: Path, tmp_path: Path) -> None:
    done = tiny.train(1, config(tmp_path, data, "dear", gate_cost=1000.0))
    assert done.returncode == 1, done.stderr
    (alarm,) = [line for line in done.stderr.splitlines() if line.startswith("ALARM")]
    assert "gate_open < 0.05" in alarm
    assert done.stderr.splitlines()[-1].startswith(f"error: {alarm}")
    record = tiny.read_record(tmp_path / "dear")
    assert [line["alarms"] for line in record] == [[]] * (len(record) - 1) + [["gate"]]
    assert [line["losses"]["gate_open"] < 0.05 for line in record[-IN_A_ROW - 1 :]] == [False] + [True] * IN_A_ROW
    saved = sorted((tmp_path / "dear" / "checkpoints").iterdir())[-1]
    assert saved.name == f"step-{len(record):08d}", "a checkpoint lies behind the last step"
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("dualmask")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["0-joint"].data.metrics["alarm_gate"] == 1
    assert runs["0-joint"].data.tags["alarm.gate"] == runs["dear"].data.tags["alarm.gate"] == alarm


def test_the_same_run_at_a_fair_price(data: Path, tmp_path: Path) -> None:
    done = tiny.train(1, config(tmp_path, data, "fair", gate_cost=0.02))
    assert done.returncode == 0, done.stderr
    assert "ALARM" not in done.stderr
    assert [line["alarms"] for line in tiny.read_record(tmp_path / "fair")] == [[]] * STEPS
