"""What counts as better, when a stage ends, and where an evaluation is told; without a training."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dualmask.config.load import ConfigError, load_yaml_model
from dualmask.config.schema import RunConfig
from dualmask.training.judge import Judge, Standing
from dualmask.training.metrics import EvalRecord, MetricsFile, StepRecord, read_evals, read_lines
from dualmask.training.progress import Progress
from dualmask.training.tracking import Tracker


def evaluated(step: int, **figures: float) -> EvalRecord:
    return EvalRecord(
        step=step,
        stage_index=0,
        stage="filler",
        figures={"dev_loss": 2.0, **figures},
        metric="dev_loss",
        is_best=True,
        ends_stage=False,
        seconds=0.5,
    )


def stepped(step: int) -> StepRecord:
    return StepRecord(
        step=step,
        step_in_stage=step,
        stage_index=0,
        stage="filler",
        losses={"total": 1.0},
        lr=0.1,
        grad_norm=1.0,
        taken=True,
        tokens=100,
        seconds=0.5,
        data_wait=0.0,
        keys="00000000",
    )


def tree(tmp_path: Path, **evaluation: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "output": str(tmp_path),
        "data": {"path": "d"},
        "stages": [{"name": "filler", "steps": 9, "train": ["filler"], "lr": {"peak": 0.1}}],
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db", "every_steps": 1, "system_metrics": False},
        "eval": evaluation,
    }


def test_standing() -> None:
    standing = Standing(stage_index=2, metric="dev_f05", sequences=8)
    history = [(0.0, -5.0), (0.0, -4.0), (math.nan, -3.0), (0.0, -4.0), (0.3, -9.0), (0.2, -1.0), (0.3, -9.0)]
    best, stale = [], []
    for step, worth in enumerate(history, 1):
        standing = Standing(**json.loads(json.dumps(asdict(standing)))).after(worth, step)  # through a checkpoint
        best.append(standing.best_step)
        stale.append(standing.stale)
    assert best == [1, 2, 2, 2, 5, 5, 5], "where F0.5 is the same, the lower loss is better; of equals the first"
    assert stale == [0, 0, 1, 2, 0, 1, 2]


def test_the_best_is_kept_in_the_last_stage_alone(tmp_path: Path) -> None:
    run = RunConfig.model_validate(tree(tmp_path))
    judge = Judge(run, None)
    assert judge.best_step is None
    assert judge.state == {}, "a run that is not judged has checkpoints as ever"
    here = Standing(stage_index=0, metric="dev_loss", sequences=64, best=(-1.0, -1.0), best_step=3)
    judge.restore(asdict(here))
    assert judge.best_step == 3
    judge.restore(asdict(replace(here, stage_index=1)))
    assert judge.best_step is None


def test_record_holds_steps_and_evaluations(tmp_path: Path) -> None:
    """Readers of steps see steps; both are dropped behind the checkpoint that a run goes on from."""
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in range(6):
        first.on_step(stepped(step))
        if step % 2:
            first.on_eval(evaluated(step, dev_f05=math.nan))
    first.close("failed")
    second = MetricsFile(path, 4)
    second.on_step(stepped(4))
    second.close("complete")
    assert [record["step"] for _, record in read_lines(path)] == [0, 1, 2, 3, 4]
    assert [record["step"] for record in read_evals(path)] == [1, 3]
    last = list(read_evals(path))[-1]
    assert last == {
        "step": 3,
        "stage": "filler",
        "eval": {"dev_loss": 2.0, "dev_f05": None},
        "metric": "dev_loss",
        "best": True,
        "ends_stage": False,
        "seconds": 0.5,
    }


def test_progress_shows_the_newest_figure(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(0, 2)
    progress.on_step(stepped(0))
    progress.on_eval(evaluated(0))
    progress.on_step(stepped(1))
    progress.close("complete")
    before, behind = capsys.readouterr().err.splitlines()
    assert "dev_loss" not in before
    assert "dev_loss 2.000 (best)" in behind


def test_tracker(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run = RunConfig.model_validate(tree(tmp_path))
    tracker = Tracker(run, "key", data_digest="0" * 64)
    tracker.on_step(stepped(0))
    tracker.on_eval(evaluated(0, dev_f05=0.25, dev_gate_auc=math.nan))
    tracker.close("complete")
    client = MlflowClient(run.tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("dualmask").experiment_id])
    assert len(runs) == 2
    for found in runs:  # the stage's and the one above it
        assert found.data.metrics["dev/f05"] == 0.25
        assert "dev/gate_auc" not in found.data.metrics
    (above,) = (found for found in runs if found.info.run_name == "x")
    assert above.data.tags["best"] == "dev_loss 2, step 0"


@pytest.mark.parametrize(
    ("evaluation", "complaint"),
    [
        ({"patience": 2}, "eval.patience=2 needs evaluations: set eval.every_steps"),
        (
            {"every_steps": 5, "export_best": True, "keep_best": False},
            "eval.export_best=True needs the best checkpoint",
        ),
        (
            {"every_steps": 5, "metric": "dev_f5"},
            "eval.metric=dev_f5 is not measured in family dualmask: give dev_loss",
        ),
        ({"every_steps": 0}, "eval.every_steps = 0: should be greater than 0"),
    ],
)
def test_configurations_that_cannot_be(evaluation: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(tree(tmp_path, **evaluation)))
    with pytest.raises(ConfigError, match=complaint):
        load_yaml_model(path, RunConfig)
