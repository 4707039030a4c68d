"""``sbatch slurm/pretrain.sh`` on two nodes of two ranks: the losses of one process, and a job with several lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from cluster import Cluster
from safetensors.torch import load_file

from dualmask.manifest import digest

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]

JOB = ["--nodes=2", "--cpus-per-task=2", "slurm/pretrain.sh"]
LAST_STAGE = 20  # steps, so that there is time to disturb it
STEPS = tiny.STEPS - tiny.CONFIG["stages"][-1]["steps"] + LAST_STAGE
LONGER = ["--set", f"stages.3.steps={LAST_STAGE}"]
FOUR_RANKS = [*LONGER, "--set", "parallel.tensor=2"]  # TP 2 × DP 2
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
    assert "slurm: life 0 on node[1-2], rank 0 at node1:" in log
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


def test_a_requeue_and_a_killed_rank_change_nothing(
    cluster: Cluster, undisturbed: list[dict[str, Any]], data: Path, folder: Path
) -> None:
    output, config = folder / "disturbed", tiny.write_config(folder, data, "disturbed")
    job = cluster.submit(*JOB, "--config", config, *FOUR_RANKS)
    cluster.until(lambda: tiny.steps_done(output) >= 3, job)
    cluster.resumes("scontrol requeue", job, output, 1, lambda: cluster.run("scontrol", "requeue", job))
    cluster.resumes("kill -9 of one rank", job, output, 2, lambda: cluster.signal("KILL", "node2"))
    account = cluster.wait(job)
    assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "2"), cluster.log(job)[-8000:]
    assert tiny.read_record(output) == undisturbed
    assert digest(output / WEIGHTS) == digest(folder / "undisturbed" / WEIGHTS)


def test_an_error_that_would_come_back_ends_the_job(cluster: Cluster, data: Path, folder: Path) -> None:
    config = tiny.write_config(folder, data, "impossible")
    job = cluster.submit(*JOB, "--config", config, "--set", "parallel.tensor=3")
    account = cluster.wait(job)
    assert (account["JobState"], account["ExitCode"], account["Restarts"]) == ("FAILED", "2:0", "0")
    assert "error: parallel.tensor=3 must divide model.heads=4" in cluster.log(job)
