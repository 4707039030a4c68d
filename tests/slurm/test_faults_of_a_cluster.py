"""One job of two nodes on a cluster of three, and the faults of a cluster: none of them changes the record."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from cluster import Cluster
from undisturbed import Undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1800)]


def test_a_job_outlives_what_clusters_do(cluster: Cluster, two_ranks: Undisturbed, data: Path, tmp_path: Path) -> None:
    """Five restarts, after which the limit on restarts ends the job; another job resumes the run."""
    output, config = tmp_path / "disturbed", tiny.write_config(tmp_path, data, "disturbed")
    capped = "--export=ALL,DUALMASK_RANKS_PER_NODE=1,DUALMASK_MAX_RESTARTS=5"
    job = two_ranks.submit(cluster, config, "--time=30", "--signal=B:USR1@100", capped)
    cluster.until(lambda: tiny.steps_done(output) >= 3, job)

    first, second = cluster.nodes(job, 0)
    cluster.signal("STOP", second)  # Slurm is slow: the tiny run would otherwise be over first
    wait_for_the_time_limit(cluster, job)
    cluster.resumes("time limit", job, output, 1, lambda: cluster.signal("CONT", second))

    cluster.signal("STOP", cluster.nodes(job, 1)[1])  # Slurm continues it when it requests its end
    urgent = ["--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"]
    cluster.resumes("preemption", job, output, 2, lambda: cluster.run("sbatch", *urgent))

    first, second = cluster.nodes(job, 2)
    cluster.signal("STOP", second)  # Slurm notices the missing slurmd after 20 s, the ranks do not
    cluster.resumes(
        "`kill -9` of a slurmd, node of rank 0", job, output, 3, lambda: cluster.signal("KILL", first, "^slurmd")
    )
    cluster.at(first, "slurmd", "-N", first)  # the job's script there has requested no restart of its own: see Restarts

    first, second = cluster.nodes(job, 3)
    cluster.resumes("power off, node of rank 0", job, output, 4, lambda: cluster.power_off(first))
    assert first not in cluster.nodes(job, 4)
    cluster.power_on(first)

    save = ["scancel", "--batch", "--signal=USR1", job]
    cluster.resumes("`scancel --batch --signal=USR1`", job, output, 5, lambda: cluster.run(*save))

    cluster.run(*save)
    account = cluster.wait(job)
    assert (account["JobState"], account["ExitCode"], account["Restarts"]) == ("FAILED", "75:0", "5")
    assert "but the limit of 5 restarts is reached (DUALMASK_MAX_RESTARTS)" in cluster.log(job)

    account = cluster.wait(two_ranks.submit(cluster, config))
    assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "0")
    assert two_ranks.equals(output)


def wait_for_the_time_limit(cluster: Cluster, job: str) -> None:
    """Until Slurm, which looks at time limits every 30 s, has sent its signal."""
    minutes = int(cluster.job(job)["RunTime"].split(":")[1])  # 00:01:23
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 2}")
    cluster.until(lambda: "slurm: requested to save" in cluster.log(job), job)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30")
