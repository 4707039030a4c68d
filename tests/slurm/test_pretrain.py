"""``sbatch slurm/pretrain.sh`` on two nodes: the losses of one process, and a job that outlives its lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from cluster import Cluster
from safetensors.torch import load_file

from dualmask.manifest import digest

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1800)]

JOB = ["--nodes=2", "--cpus-per-task=2", "slurm/pretrain.sh"]
LAST_STAGE = 6  # steps, so that there is time to disturb it
STEPS = tiny.STEPS - tiny.CONFIG["stages"][-1]["steps"] + LAST_STAGE
LONGER = ["--set", f"stages.3.steps={LAST_STAGE}"]
FOUR_RANKS = [*LONGER, "--set", "parallel.tensor=2"]  # two nodes of two ranks: TP 2 × DP 2
WEIGHTS = "export/model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, data: Path, folder: Path) -> list[dict[str, Any]]:
    """The record of a job that nothing happened to."""
    job = cluster.submit(*JOB, "--config", tiny.write_config(folder, data, "undisturbed"), *FOUR_RANKS)
    account = cluster.wait(job)
    log = cluster.log(job)
    assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "0"), log[-4000:]
    assert "rank 0 at node1:" in log
    record = tiny.read_record(folder / "undisturbed")
    assert [line["step"] for line in record] == list(range(STEPS))
    return record


def test_two_nodes_give_the_losses_of_one_process(undisturbed: list[dict[str, Any]], data: Path, folder: Path) -> None:
    done = tiny.train(1, tiny.write_config(folder, data, "alone"), *LONGER)
    assert done.returncode == 0, done.stderr
    alone = tiny.read_record(folder / "alone")
    for key in ("tokens", "grad_norm"):
        assert [line[key] for line in undisturbed] == pytest.approx([line[key] for line in alone], rel=2e-5), key
    totals, expected = ([line["losses"]["total"] for line in record] for record in (undisturbed, alone))
    assert totals == pytest.approx(expected, rel=0, abs=1e-5)
    ours, theirs = (load_file(folder / name / WEIGHTS) for name in ("undisturbed", "alone"))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5


def test_goes_on_after_what_clusters_do(
    cluster: Cluster, undisturbed: list[dict[str, Any]], data: Path, folder: Path
) -> None:
    """Three lives of one job: requeued, told that its time is up, ended."""
    output, config = folder / "disturbed", tiny.write_config(folder, data, "disturbed")
    job = cluster.submit(*JOB, "--config", config, *FOUR_RANKS)
    until(lambda: tiny.steps_done(output) >= 3, cluster, job)
    cluster.run("scontrol", "requeue", job)
    until(lambda: "life 1" in cluster.log(job) and tiny.steps_done(output) >= 9, cluster, job)
    cluster.run("scancel", "--batch", "--signal=USR1", job)  # what Slurm sends before the time limit
    account = cluster.wait(job)
    log = cluster.log(job)
    assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "2"), log[-4000:]
    assert tiny.read_record(output) == undisturbed
    assert digest(output / WEIGHTS) == digest(folder / "undisturbed" / WEIGHTS)
    assert "training ended with exit code 75; starting again" in log, log[-8000:]


def until(condition: Callable[[], bool], cluster: Cluster, job: str) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, cluster.log(job)[-4000:]
        time.sleep(0.05)
