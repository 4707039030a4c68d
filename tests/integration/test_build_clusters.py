"""A build on a cluster that others have started: two nodes, a head that dies, a job of Ray's job server."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

import psutil
import pytest
from build_processes import (
    PATIENCE_SECONDS,
    PYTHONPATH,
    ROOT,
    built,
    command,
    digests,
    finish,
    start,
    wait_until,
    write_corpus,
)
from ray_nodes import ray_nodes
from tiny import free_port

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

JOB_SERVER = ("aiohttp_cors", "opencensus", "prometheus_client", "smart_open", "colorful", "virtualenv", "grpc")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "files", 24)


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a build on one machine leaves."""
    output = tmp_path_factory.mktemp("alone") / "out"
    built(command(corpus, output))
    return digests(output)


def assert_one_line(process: subprocess.Popen[str], said: str, beginning: str) -> None:
    """The build ends with an error that its user can mend."""
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(beginning), said
    assert process.returncode == 2


def test_two_nodes_build_the_bytes_of_one(corpus: Path, alone: dict[str, str], tmp_path: Path) -> None:
    with ray_nodes(2) as nodes:
        process = start(command(corpus, tmp_path / "out"), nodes.environment)
        assert wait_until(lambda: all(nodes.tasks(node) for node in nodes.nodes), process), finish(process)
        assert "Ray: 2 nodes, 2 cores" in finish(process)
    assert process.returncode == 0
    assert digests(tmp_path / "out") == alone


def test_the_death_of_the_head_is_one_line_and_another_cluster_goes_on(
    corpus: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    with ray_nodes(2) as nodes:
        process = start(command(corpus, tmp_path / "out"), nodes.environment)
        assert wait_until(lambda: list(tmp_path.glob("out/.work/read/*.json")), process), finish(process)
        nodes.power_off_head()
        said = finish(process)
    assert_one_line(process, said, "dualmask: ")
    built(command(corpus, tmp_path / "out"))
    assert digests(tmp_path / "out") == alone


def test_a_task_that_dies_each_time_is_one_line(corpus: Path, alone: dict[str, str], tmp_path: Path) -> None:
    """As one does that needs more memory than there is."""
    with ray_nodes(1) as nodes:
        process = start(command(corpus, tmp_path / "out"), nodes.environment)
        while wait_until(nodes.tasks, process):
            for task in nodes.tasks():
                with suppress(psutil.NoSuchProcess):
                    task.kill()
        said = finish(process)
    assert_one_line(process, said, "dualmask: Ray has lost a task again and again (")
    built(command(corpus, tmp_path / "out"))
    assert digests(tmp_path / "out") == alone


def test_a_job_of_rays_job_server_builds_the_bytes_of_one_machine(
    corpus: Path, alone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := [name for name in JOB_SERVER if PathFinder.find_spec(name) is None]:
        pytest.skip(f"Ray's job server needs ray[default], of which {', '.join(missing)} are not installed")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)  # of the nodes' processes
    with ray_nodes(0) as nodes:
        server = f"http://127.0.0.1:{(port := free_port())}"
        nodes.add(include_dashboard=True, dashboard_port=port)
        nodes.add()
        ray = str(Path(sys.executable).with_name("ray"))
        submit = [ray, "job", "submit", "--address", server, "--", *command(corpus, tmp_path / "out")]
        done = subprocess.run(
            submit,
            env=os.environ | nodes.environment | {"RAY_ADDRESS": server},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is complete (" in done.stdout + done.stderr
    assert digests(tmp_path / "out") == alone
