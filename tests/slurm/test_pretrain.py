"""``sbatch slurm/pretrain.sh`` on two nodes of two ranks: the losses of one process, and restarts of a job."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from cluster import Cluster
from safetensors.torch import load_file
from undisturbed import WEIGHTS, Undisturbed

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]


def test_two_nodes_give_the_losses_of_one_process(four_ranks: Undisturbed, data: Path, tmp_path: Path) -> None:
    last_stage = four_ranks.changes[:2]
    done = tiny.train(1, tiny.write_config(tmp_path, data, "alone"), *last_stage)
    assert done.returncode == 0, done.stderr
    record, reference = (tiny.read_record(output) for output in (four_ranks.output, tmp_path / "alone"))
    for key in ("tokens", "grad_norm"):
        assert [line[key] for line in record] == pytest.approx([line[key] for line in reference], rel=2e-5), key
    totals, expected = ([line["losses"]["total"] for line in record] for record in (record, reference))
    assert totals == pytest.approx(expected, rel=0, abs=1e-5)
    model, other = (load_file(output / WEIGHTS) for output in (four_ranks.output, tmp_path / "alone"))
    assert model.keys() == other.keys()
    assert max(float((model[name] - other[name]).abs().max()) for name in model) < 1e-5


def test_a_requeue_and_a_killed_rank_change_nothing(
    cluster: Cluster, four_ranks: Undisturbed, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "disturbed"
    job = four_ranks.submit(cluster, tiny.write_config(tmp_path, data, output.name))
    cluster.until(lambda: tiny.steps_done(output) >= 3, job)
    cluster.resumes("`scontrol requeue`", job, output, 1, lambda: cluster.run("scontrol", "requeue", job))
    cluster.resumes("`kill -9` of a rank", job, output, 2, lambda: cluster.signal("KILL", "node2"))
    account = cluster.wait(job)
    assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "2"), cluster.log(job)[-8000:]
    assert four_ranks.equals(output)


def test_an_error_of_one_node_ends_the_job(
    cluster: Cluster, four_ranks: Undisturbed, data: Path, tmp_path: Path
) -> None:
    """It would come back. The ranks of the other node only wait for those that cannot start, and must not hide it."""
    config = tiny.write_config(tmp_path, data)
    cluster.at("node2", "mount", "-t", "tmpfs", "none", tmp_path)
    job = four_ranks.submit(cluster, config, "--export=ALL,DUALMASK_GRACE=3")
    account = cluster.wait(job)
    cluster.at("node2", "umount", tmp_path)
    assert (account["JobState"], account["ExitCode"], account["Restarts"]) == ("FAILED", "2:0", "0"), cluster.log(job)
    assert f"1: error: {config}: cannot be read" in cluster.log(job)
