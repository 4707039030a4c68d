"""A Slurm of three nodes, real down to the daemons and their network; installed where that is possible."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from cluster import Cluster
from packages import install
from undisturbed import Undisturbed

from dualmask.evaluation import report

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge", "iproute2"]
PROGRAMS = ["slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare"]
CLUSTER = pytest.StashKey[Cluster]()
RESULTS = tiny.ROOT / "build" / "slurm.json"


def reason_to_skip() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of several nodes needs Linux and root, for its network namespaces"
    if reason := install(PACKAGES, PROGRAMS):
        return reason
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Writes down at the end how long it took to resume."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    site = folder / "env.sh"
    site.write_text(
        f'export PATH="{Path(sys.executable).parent}:$PATH" DUALMASK_RANKS_PER_NODE=${{DUALMASK_RANKS_PER_NODE:-2}}\n'
    )
    slurm = pytestconfig.stash[CLUSTER] = Cluster(folder, tiny.environment() | {"DUALMASK_SLURM_ENV": str(site)})
    try:
        slurm.up()
        yield slurm
    finally:
        slurm.down()
        if slurm.resumed:
            report.write(RESULTS, "slurm", slurm.resumed)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def four_ranks(cluster: Cluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """TP 2 × DP 2."""
    return Undisturbed.run(cluster, data, tmp_path_factory.mktemp("four"), [], last_stage=20, tensor=2)


@pytest.fixture(scope="session")
def two_ranks(cluster: Cluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """DP 2, one rank a node: quicker to start."""
    one_a_node = "--export=ALL,DUALMASK_RANKS_PER_NODE=1"
    return Undisturbed.run(cluster, data, tmp_path_factory.mktemp("two"), [one_a_node], last_stage=60)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of docs/cluster.md."""
    cluster = config.stash.get(CLUSTER, None)
    if cluster and cluster.resumed:
        terminalreporter.section(f"seconds from the fault to the first new step ({RESULTS})")
        for row in cluster.resumed:
            terminalreporter.line(f"| {row['fault']} | {row['value']:.0f} |")
