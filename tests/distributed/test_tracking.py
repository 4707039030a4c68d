"""MLflow: what a run leaves in the store, and that a store which is not there changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import tiny
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from data_pipeline.page import write_page

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/runs/mlflow.db"


@pytest.fixture(scope="module")
def runs(data: Path, folder: Path, uri: str) -> dict[str, Run]:
    """Runs by name, of a training that was stopped in its second stage and then resumed."""
    described = Path(shutil.copytree(data, folder / "data"))
    write_page(described)
    config = tiny.write_config(folder, described, tracking={"enabled": True, "uri": uri, "every_steps": 2})
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    stopped = tiny.start_ranks(1, config, "--set", "stages.1.steps=4000")
    monkeypatch.undo()
    end = time.monotonic() + 120
    while not system_metrics_in(folder / "runs" / "mlflow.db") or tiny.steps_done(folder / "tiny") < 7:
        assert stopped[0].poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    stopped[0].terminate()
    assert tiny.finish(stopped) == [75]
    steps = len(tiny.read_record(folder / "tiny")) - 5
    done = tiny.train(1, config, "--set", f"stages.1.steps={steps + 3}", "--set", "tracking.system_metrics=false")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("dualmask")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + len(tiny.CONFIG["stages"]), (
        "one parent and one run a stage, though two processes logged them"
    )
    return {run.info.run_name: run for run in runs}


def system_metrics_in(store: Path) -> bool:
    """Reads beside MLflow, which may not have made its tables yet."""
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as reader:
            return bool(reader.execute("select count(*) from metrics where key like 'system/cpu%'").fetchone()[0])
    except sqlite3.OperationalError:
        return False


def test_parent_and_stages(runs: dict[str, Run]) -> None:
    assert set(runs) == {"tiny", "0-filler", "1-inserter", "2-picker", "3-joint"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = runs["tiny"]
    for name, run in runs.items():
        if name != "tiny":
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_system_metrics(runs: dict[str, Run]) -> None:
    assert "system/cpu_utilization_percentage" in runs["tiny"].data.metrics


def test_parameters_and_dataset(runs: dict[str, Run]) -> None:
    parent = runs["tiny"]
    assert parent.data.params["model.hidden"] == "32"
    assert parent.data.params["stages.2.lr.peak"] == "0.003"
    assert len(parent.data.tags["dataset.digest"]) == 64
    assert parent.inputs.dataset_inputs[0].dataset.digest == parent.data.tags["dataset.digest"][:36]


def test_the_card_of_the_data_is_an_artifact(runs: dict[str, Run], uri: str, folder: Path) -> None:
    """Once, though two processes logged the run."""
    client, parent = MlflowClient(uri), runs["tiny"].info.run_id
    cards = [
        item.path for part in client.list_artifacts(parent, "data") for item in client.list_artifacts(parent, part.path)
    ]
    assert cards == ["data/0-data/report.html"]
    (logged,) = (folder / "runs" / "mlartifacts").rglob("report.html")
    assert logged.read_bytes() == (folder / "data" / "report.html").read_bytes()


def test_metrics_are_those_of_the_record(runs: dict[str, Run], uri: str, folder: Path) -> None:
    record = {line["step"]: line for line in tiny.read_record(folder / "tiny")}
    history = MlflowClient(uri).get_metric_history(runs["0-filler"].info.run_id, "loss/recon")
    assert {point.step for point in history} == {0, 2, 4}
    for point in history:
        assert point.value == record[point.step]["losses"]["recon"]
    names = runs["2-picker"].data.metrics
    assert {"loss/keep_recover", "loss/ptr_count", "lr", "grad_norm", "tokens_per_second", "data_wait"} <= names.keys()


def test_artifacts_lie_beside_the_store(runs: dict[str, Run], uri: str, folder: Path) -> None:
    client = MlflowClient(uri)
    for name in ("0-filler", "1-inserter", "2-picker", "3-joint"):
        files = {item.path for item in client.list_artifacts(runs[name].info.run_id)}
        assert {"losses.png", "samples"} <= files, name
    artifacts = folder / "runs" / "mlartifacts"
    assert "[MASK]" in next(artifacts.rglob("stage-0-filler.txt")).read_text()
    assert "start: " in next(artifacts.rglob("stage-3-joint.txt")).read_text()


def test_no_server(data: Path, tmp_path: Path) -> None:
    port = tiny.free_port()  # nobody listens there
    away = {"enabled": True, "uri": f"http://127.0.0.1:{port}"}
    done = tiny.train(1, tiny.write_config(tmp_path, data, "away", tracking=away), timeout=120)
    assert done.returncode == 0, done.stderr
    assert "training goes on" in done.stderr
    assert (tmp_path / "away" / "export" / "model.safetensors").is_file()
    assert len(tiny.read_record(tmp_path / "away")) == tiny.STEPS
