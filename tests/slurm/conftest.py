"""A Slurm of three nodes, real down to the daemons and their network; installed where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))
import tiny
from cluster import Cluster

from dualmask.evaluation import report

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge", "iproute2"]
PROGRAMS = ["slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare"]
CLUSTER = pytest.StashKey[Cluster]()
RESULTS = tiny.ROOT / "build" / "slurm.json"


def install(packages: list[str], programs: list[str]) -> str | None:
    """Installs Debian packages unless their programs are there; says why that could not be."""
    if all(map(shutil.which, programs)):
        return None
    if shutil.which("apt-get") is None:
        return f"{' '.join(packages)}: not installed, and there is no apt-get to install them"
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # no daemon is started by that
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return f"apt-get could not install {' '.join(packages)} within 300 s"
    if not all(map(shutil.which, programs)):
        return f"apt-get could not install {' '.join(packages)}: {done.stderr.strip()[-300:]}"
    return None


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of docs/cluster.md."""
    if cluster := config.stash.get(CLUSTER, None):
        terminalreporter.section(f"seconds from the fault to the first new step ({RESULTS})")
        for row in cluster.resumed:
            terminalreporter.line(f"| {row['fault']} | {row['value']:.0f} |")
