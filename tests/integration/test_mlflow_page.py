"""The store of a run in the real MLflow page, in a real headless browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


@pytest.fixture
def pages(tmp_path: Path):
    """Addresses of an experiment with a parent run and a stage, as the tracker nests them, and of that stage."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("dualmask", artifact_location=(tmp_path / "artifacts").as_uri())
    parent = client.create_run(experiment, run_name="quickstart")
    stage = client.create_run(experiment, run_name="0-filler", tags={"mlflow.parentRunId": parent.info.run_id})
    client.log_metric(stage.info.run_id, "loss/total", 1.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        runs = f"{address}/#/experiments/{experiment}/runs"
        yield runs, f"{runs}/{stage.info.run_id}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(address)


def _seen(address: str, profile: Path) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [f"--user-data-dir={profile}", "--virtual-time-budget=30000", "--window-size=1400,900", "--dump-dom"]
    return subprocess.run([str(CHROMIUM), *flags, address], capture_output=True, text=True, timeout=180).stdout


def test_the_pages_show_the_run_and_its_stage(pages: tuple[str, str], tmp_path: Path) -> None:
    runs, stage = (_seen(address, tmp_path / "profile") for address in pages)
    assert "quickstart" in runs  # stages are folded under it
    for text in ("0-filler", "quickstart", "loss/total"):  # its name, its parent, what was logged
        assert text in stage, f"{text} is not on the stage's page"
