"""The record, the progress lines and the tracker, each without a training."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dualmask.config.schema import RunConfig
from dualmask.training.metrics import MetricsFile, StepRecord
from dualmask.training.preemption import StopRequest
from dualmask.training.progress import Progress
from dualmask.training.tracking import Tracker

STEPS = 40


def record(step: int, **changes: Any) -> StepRecord:
    values: dict[str, Any] = {
        "step": step,
        "step_in_stage": step,
        "stage_index": 0,
        "stage": "filler",
        "losses": {"total": 2.0 - step / STEPS, "recon": 1.0},
        "lr": 0.1,
        "grad_norm": 1.0,
        "taken": True,
        "tokens": 100,
        "seconds": 0.5,
        "data_wait": 0.01,
        "keys": "00000000",
    }
    return StepRecord(**values | changes)


def tracked_run(tmp_path: Path, uri: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": str(tmp_path),
            "data": {"path": "d"},
            "stages": [{"name": "filler", "steps": STEPS, "train": ["filler"], "lr": {"peak": 0.1}}],
            "tracking": {"uri": uri, "every_steps": 1, "system_metrics": False},
        }
    )


def test_record_is_json_whatever_the_figures(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.on_step(record(0, losses={"total": math.nan}, grad_norm=math.inf, taken=False))
    file.close("complete")
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["losses"]["total"] is None
    assert line["grad_norm"] is None
    assert line["taken"] is False
    assert line["tokens_per_second"] == 200


def test_record_of_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in range(7):
        first.on_step(record(step))
    first.close("failed")
    path.write_text(path.read_text() + '{"step": 7, "st')  # cut short by a crash
    second = MetricsFile(path, 4)
    for step in range(4, 9):
        second.on_step(record(step))
    second.close("complete")
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(9))


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(0, STEPS)
    for step in range(STEPS):
        progress.on_step(record(step))
    progress.close("complete")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, "the first step and the last: ten seconds have not passed"
    assert "stage filler step 1/40" in lines[0]
    assert "200 tok/s" in lines[0]
    assert "total 2.000" in lines[0]
    assert "ETA" in lines[0]
    assert "step 40/40" in lines[1]


def test_stop_request_survives_its_signals() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    try:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            stop = StopRequest()
            assert not stop.wanted
            os.kill(os.getpid(), number)
            assert stop.wanted
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_a_store_that_comes_late_gets_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First a file stands where the store's folder should be; nobody waits for it; then it gives way."""
    from mlflow.tracking import MlflowClient

    blocked = tmp_path / "runs"
    blocked.touch()
    uri = f"sqlite:///{blocked}/mlflow.db"
    tracker = Tracker(tracked_run(tmp_path, uri), "key", data_digest="0" * 64)
    slowest = 0.0
    for step in range(STEPS):
        began = time.perf_counter()
        tracker.on_step(record(step))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1.0, "a step waited for the store"
    end = time.monotonic() + 60
    while "training goes on" not in capsys.readouterr().err:
        assert time.monotonic() < end
        time.sleep(0.1)
    blocked.unlink()
    client = None
    while client is None:
        assert time.monotonic() < end
        time.sleep(0.2)
        if (blocked / "mlflow.db").exists() and not tracker.failing:
            client = MlflowClient(uri)
    tracker.close("complete")
    (stage,) = client.search_runs(
        [client.get_experiment_by_name("dualmask").experiment_id], "tags.`dualmask.stage` = '0'"
    )
    assert len(client.get_metric_history(stage.info.run_id, "loss/total")) == STEPS


def test_a_server_that_is_not_there_is_left_soon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tracked_run(tmp_path, "http://127.0.0.1:9"), "key", data_digest="0" * 64)
    tracker.on_step(record(0))
    end = time.monotonic() + 60
    while not tracker.failing:
        assert time.monotonic() < end
        time.sleep(0.1)
    began = time.monotonic()
    tracker.close("complete")
    assert time.monotonic() - began < 5
    assert "the record is in" in capsys.readouterr().err
