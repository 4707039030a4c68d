"""Several nodes without Slurm: torchrun on each, or the deepspeed command, which reaches them over ssh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from cluster import Cluster
from packages import install
from undisturbed import Undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1200)]

NODES = ("node1", "node2")


def test_torchrun(cluster: Cluster, two_ranks: Undisturbed, data: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, data, "torchrun")
    for rank, node in reversed([*enumerate(NODES)]):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}"]
        command += ["--nproc-per-node=1", "--master-addr=node1", "--master-port=29500", "launcher/train.py"]
        command += ["--config", str(config), *two_ranks.changes]
        if rank == 0:
            cluster.at(node, *command, timeout=600)
        else:
            cluster.at(node, "bash", "-c", '"$@" &', "aside", *command)
    assert two_ranks.equals(tmp_path / "torchrun")


@pytest.fixture
def ssh(cluster: Cluster, tmp_path: Path) -> str:
    """Options of a client that every node lets in; nobody else can reach these servers."""
    if reason := install(["openssh-server", "openssh-client", "pdsh"], ["sshd", "ssh", "pdsh"]):
        pytest.skip(reason)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    options = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i {key}"
    server = [f"-oHostKey={key}", f"-oAuthorizedKeysFile={key}.pub", "-oStrictModes=no", "-oUsePAM=yes"]
    for node in NODES:
        cluster.at(node, "mkdir", "-p", "/run/sshd")
        cluster.at(node, "/usr/sbin/sshd", "-f", "/dev/null", *server, f"-oPidFile={tmp_path}/{node}.pid")
    return options


def test_deepspeed_with_a_hostfile(
    cluster: Cluster, ssh: str, two_ranks: Undisturbed, data: Path, tmp_path: Path
) -> None:
    config = tiny.write_config(tmp_path, data, "deepspeed")
    (tmp_path / "hostfile").write_text("".join(f"{node} slots=1\n" for node in NODES))
    (tmp_path / "exports").write_text("OMP_NUM_THREADS=1\nDS_ACCELERATOR=cpu\n")
    command = [Path(sys.executable).with_name("deepspeed"), "--hostfile", tmp_path / "hostfile", "--no_ssh_check"]
    command += ["--master_addr=node1", "--master_port=29600", "launcher/train.py", "--config", config]
    settings = [f"PDSH_SSH_ARGS_APPEND={ssh}", f"DS_ENV_FILE={tmp_path}/exports"]
    cluster.run("env", *settings, *command, *two_ranks.changes, timeout=600)
    assert two_ranks.equals(tmp_path / "deepspeed")
