"""The run in MLflow: one parent run with one nested run per stage. The only importer of mlflow.

A separate thread, fed by a queue, does all the work: a slow or unreachable server neither stops nor slows training.
Values that could not be sent are still in ``metrics.jsonl``.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dualmask.config.address import local_folder
from dualmask.config.load import flatten
from dualmask.config.schema import RunConfig
from dualmask.training.metrics import EvalRecord, StepRecord
from dualmask.training.plots import plot_losses

KEY_TAG = "dualmask.key"  # by which a resumed process finds its MLflow runs again
STAGE_TAG = "dualmask.stage"
_DATA_TAG = "dataset.digest"
_CARD_FILE = "report.html"  # that a data build leaves in its folder
_MAX_PAUSE = 30.0  # seconds between two attempts to reach a server that does not answer
_CLOSE_TIMEOUT = 120.0  # seconds that the end of a run waits for a server that answers
_QUEUE_SIZE = 50_000
_PARAM_LENGTH = 500
_TAG_LENGTH = 5000


class Tracker:
    """An Observer that reports to MLflow. ``key`` identifies the training; a resumed run passes the same key."""

    def __init__(self, run: RunConfig, key: str, *, data_digest: str) -> None:
        self._run, self._every = run, run.tracking.every_steps
        self._jobs: queue.Queue[Callable[[_Store], None]] = queue.Queue(_QUEUE_SIZE)
        self.failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(key, data_digest), name="mlflow", daemon=True)
        self._thread.start()

    def on_step(self, record: StepRecord) -> None:
        last_of_stage = record.step_in_stage + 1 == self._run.stages[record.stage_index].steps
        if record.step % self._every == 0 or last_of_stage or not record.taken or record.alarms:
            now = int(time.time() * 1000)
            self._put(lambda store: store.log(record, now))

    def on_eval(self, record: EvalRecord) -> None:
        now = int(time.time() * 1000)
        self._put(lambda store: store.log_eval(record, now))

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        self._put(lambda store: store.end_stage(stage_index, stage, texts))

    def close(self, status: str) -> None:
        """Waits until everything is sent, unless the server does not answer."""
        self._put(lambda store: store.finish(status))
        self._closing.set()
        end = time.monotonic() + _CLOSE_TIMEOUT
        while self._thread.is_alive() and time.monotonic() < end and not self.failing:
            self._thread.join(0.2)
        if self._thread.is_alive():
            _say(f"not everything reached {self._run.tracking.uri}; the record is in {self._run.output}/metrics.jsonl")

    def _put(self, job: Callable[[_Store], None]) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            if not self.failing:
                _say("too much is waiting to be sent; leaving some out")
                self.failing = True

    def _work(self, key: str, data_digest: str) -> None:
        store = self._retry(lambda: _Store(self._run, key, data_digest))
        while store is not None and not (self._closing.is_set() and self._jobs.empty()):
            try:
                job = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            self._retry(lambda job=job: job(store))  # type: ignore[misc]

    def _retry(self, action: Callable[[], Any]) -> Any:
        """Repeats ``action`` until it succeeds; None if the run ends first."""
        pause = 1.0
        while True:
            try:
                result = action()
                if self.failing:
                    _say("the server answers again")
                self.failing = False
                return result
            except Exception as error:  # whatever a network, a disk or mlflow can raise: it must not reach training
                if not self.failing:
                    reason = " ".join(str(error).split())[:200]
                    _say(f"{self._run.tracking.uri} does not take what is sent; training goes on. {reason}")
                self.failing = True
                if self._closing.wait(pause):
                    return None
                pause = min(2 * pause, _MAX_PAUSE)


class SweepRun:
    """The MLflow run above those of a sweep's trials, which name its ``id`` as ``tracking.parent``.

    ``id`` is None where the server does not answer: the sweep goes on, and its trials are runs by themselves.
    """

    def __init__(self, run: RunConfig, *, data_digest: str) -> None:
        quiet = run.tracking.model_copy(update={"system_metrics": False})
        self._run = run.model_copy(update={"name": f"{run.name}-sweep", "tracking": quiet})
        self._store = self._try(lambda: _Store(self._run, uuid.uuid4().hex, data_digest))
        self.id = None if self._store is None else self._store.parent

    def close(self, best: dict[str, Any], metric: str, value: float | None) -> None:
        """best: keys of the best trial; value: its figure, None if there is no such trial."""
        if self._store is not None:
            store = self._store
            self._try(lambda: store.end_sweep(best, f"dev/{metric.removeprefix('dev_')}", value))

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # see Tracker._retry
            _say(f"{self._run.tracking.uri} does not take what is sent; {' '.join(str(error).split())[:200]}")
            return None


class _Store:
    """The calls of MLflow, in the tracker's thread. Every method may raise, and may then be called again."""

    def __init__(self, run: RunConfig, key: str, data_digest: str) -> None:
        # one short attempt: the tracker itself decides when to try again
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._run, self._key = run, key
        self._uri = _ready(run.tracking.uri)
        self._client = MlflowClient(self._uri)
        self._experiment = self._find_experiment()
        self._stages: dict[int, str] = {}
        above = {} if run.tracking.parent is None else {"mlflow.parentRunId": run.tracking.parent}
        self._parent, known = self._find_or_create(above, run.name)
        if _DATA_TAG not in self._client.get_run(self._parent).data.tags:
            self._describe(data_digest)
            self._log_cards()
        self._monitor = self._watch_system(resumed=known)

    def log(self, record: StepRecord, milliseconds: int) -> None:
        from mlflow.entities import Metric

        figures = {f"loss/{name}": value for name, value in record.losses.items()}
        figures |= {"lr": record.lr, "grad_norm": record.grad_norm, "skipped": float(not record.taken)}
        figures |= {"tokens_per_second": record.tokens_per_second, "data_wait": record.data_wait}
        figures |= {} if record.mfu is None else {"mfu": record.mfu}
        figures |= {f"alarm_{alarm.name}": 1.0 for alarm in record.alarms}
        metrics = [Metric(name, value, milliseconds, record.step) for name, value in figures.items()]
        stage = self._stage(record.stage_index, record.stage)
        self._client.log_batch(stage, metrics=metrics)
        for alarm in record.alarms:
            for run_id in (stage, self._parent):
                self._client.set_tag(run_id, f"alarm.{alarm.name}", alarm.text[:_TAG_LENGTH])
        self._client.log_batch(self._parent, metrics=[m for m in metrics if m.key in ("loss/total", "lr")])

    def log_eval(self, record: EvalRecord, milliseconds: int) -> None:
        """``dev/f05`` and the like, in the run of the stage and in the parent's."""
        from mlflow.entities import Metric

        metrics = [
            Metric(f"dev/{name.removeprefix('dev_')}", value, milliseconds, record.step)
            for name, value in record.figures.items()
            if math.isfinite(value)
        ]
        for run_id in (self._stage(record.stage_index, record.stage), self._parent):
            self._client.log_batch(run_id, metrics=metrics)
        if record.is_best:
            self._client.set_tag(self._parent, "best", f"{record.metric} {record.value:.6g}, step {record.step}")

    def end_stage(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        run_id = self._stage(stage_index, stage)
        for name, text in texts.items():
            self._client.log_text(run_id, text, f"samples/{name}")
        figure = plot_losses(self._run.output / "metrics.jsonl", stage_index, self._run.stages)
        self._client.log_figure(run_id, figure, "losses.png")
        self._client.set_terminated(run_id, "FINISHED")

    @property
    def parent(self) -> str:
        """Id of the run that the others belong to."""
        return self._parent

    def end_sweep(self, best: dict[str, Any], metric: str, value: float | None) -> None:
        from mlflow.entities import Param

        params = [Param(f"best.{key}", str(chosen)[:_PARAM_LENGTH]) for key, chosen in best.items()]
        self._client.log_batch(self._parent, params=params)
        if value is not None:
            self._client.log_metric(self._parent, metric, value)
        self._client.set_terminated(self._parent, "FINISHED" if value is not None else "FAILED")

    def finish(self, status: str) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        # a preempted run is resumed later, in the same MLflow run
        ended = {"complete": "FINISHED", "failed": "FAILED"}.get(status, "SCHEDULED")
        if ended == "FINISHED":
            self._client.set_terminated(self._parent, ended)
            return
        for run_id in [*self._stages.values(), self._parent]:
            if self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, ended)

    def _stage(self, index: int, name: str) -> str:
        if index not in self._stages:
            tags = {STAGE_TAG: str(index), "mlflow.parentRunId": self._parent}
            self._stages[index], _ = self._find_or_create(tags, f"{index}-{name}")
        return self._stages[index]

    def _find_or_create(self, tags: dict[str, str], name: str) -> tuple[str, bool]:
        """(run id, whether it existed): the parent run or a stage's; one from before a restart is continued."""
        stage = tags.get(STAGE_TAG, "parent")
        query = f"tags.`{KEY_TAG}` = '{self._key}' and tags.`{STAGE_TAG}` = '{stage}'"
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return runs[0].info.run_id, True
        tags = {KEY_TAG: self._key, STAGE_TAG: stage, **tags}
        return self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id, False

    def _find_experiment(self) -> str:
        name = self._run.tracking.experiment
        if (experiment := self._client.get_experiment_by_name(name)) is not None:
            return experiment.experiment_id
        artifact_location = None
        if self._uri.startswith("sqlite:///"):  # artifacts are kept beside the database
            artifact_location = (Path(self._uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        return self._client.create_experiment(name, artifact_location=artifact_location)

    def _describe(self, data_digest: str) -> None:
        """Parameters and data. The tag comes last: it says that the rest is there."""
        from mlflow.entities import Dataset, DatasetInput, Param

        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in flatten(self._run).items()]
        for start in range(0, len(params), 100):  # MLflow's limit
            self._client.log_batch(self._parent, params=params[start : start + 100])
        source = Dataset(self._run.data.name, data_digest[:36], "local", ", ".join(self._run.data.paths))
        self._client.log_inputs(self._parent, [DatasetInput(source)])
        self._client.set_tag(self._parent, _DATA_TAG, data_digest)

    def _log_cards(self) -> None:
        """The page of each data folder that has one. Metrics do not wait for a store of artifacts that refuses it."""
        for number, folder in enumerate(map(local_folder, self._run.data.paths)):
            if (card := folder / _CARD_FILE).is_file():
                try:
                    self._client.log_artifact(self._parent, str(card), f"data/{number}-{folder.absolute().name}")
                except Exception as error:  # see Tracker._retry
                    _say(f"{card} was not taken: {' '.join(str(error).split())[:200]}")

    def _watch_system(self, *, resumed: bool) -> Any:
        if not self._run.tracking.system_metrics:
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self._parent, resume_logging=resumed, tracking_uri=self._uri)
        monitor.start()
        return monitor


def _ready(uri: str) -> str:
    """``uri`` with an absolute SQLite path, whose folder is created; any other address unchanged."""
    if not uri.startswith("sqlite:///"):
        return uri
    file = Path(uri.removeprefix("sqlite:///")).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}"


def _say(text: str) -> None:
    print(f"tracking: {text}", file=sys.stderr, flush=True)
