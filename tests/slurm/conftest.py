"""A Slurm of two nodes, real down to the daemons and their network; installed where that is possible."""

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

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge", "iproute2"]
PROGRAMS = ["slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare"]


def reason_to_skip() -> str | None:
    """Installs Slurm where that is possible; says why it is not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of two nodes needs Linux and root, for its network namespaces"
    if not all(map(shutil.which, PROGRAMS)):
        if shutil.which("apt-get") is None:
            return f"Slurm is not installed, and there is no apt-get to install it: {' '.join(PACKAGES)}"
        command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "apt-get could not install Slurm within 300 s"
        if not all(map(shutil.which, PROGRAMS)):
            return f"apt-get could not install Slurm: {done.stderr.strip()[-300:]}"
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := reason_to_skip():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    site = folder / "env.sh"
    site.write_text(f'export PATH="{Path(sys.executable).parent}:$PATH" DUALMASK_RANKS_PER_NODE=2\n')
    slurm = Cluster(folder, tiny.environment() | {"DUALMASK_SLURM_ENV": str(site)})
    try:
        slurm.up()
        yield slurm
    finally:
        slurm.down()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("data") / "tiny")
