"""An undisturbed job, with whose record and weights those of disturbed jobs are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tiny
from cluster import Cluster

from dualmask.core.manifest import digest

WEIGHTS = "export/model.safetensors"


@dataclass(frozen=True)
class Undisturbed:
    output: Path
    options: tuple[str, ...]  # of sbatch
    changes: tuple[str, ...]  # to the configuration

    @classmethod
    def run(cls, cluster: Cluster, data: Path, folder: Path, options: list[str], **changes: int) -> Undisturbed:
        """Two nodes; ``changes``: ``last_stage`` steps, so that there is time to disturb a job, and ``tensor``."""
        keys = {"last_stage": "stages.3.steps", "tensor": "parallel.tensor"}
        undisturbed = cls(
            output=folder / "undisturbed",
            options=("--nodes=2", "--cpus-per-task=2", *options),
            changes=tuple(word for name, value in changes.items() for word in ("--set", f"{keys[name]}={value}")),
        )
        job = undisturbed.submit(cluster, tiny.write_config(folder, data, "undisturbed"))
        account = cluster.wait(job)
        assert (account["JobState"], account["Restarts"]) == ("COMPLETED", "0"), cluster.log(job)[-4000:]
        assert "slurm: restart 0 on node[1-2], rank 0 at node1:" in cluster.log(job)
        steps = tiny.STEPS - tiny.CONFIG["stages"][-1]["steps"] + changes["last_stage"]
        assert [line["step"] for line in tiny.read_record(undisturbed.output)] == list(range(steps))
        return undisturbed

    def submit(self, cluster: Cluster, config: Path, *options: str, script: str = "slurm/pretrain.sh") -> str:
        """A job of the same shape."""
        return cluster.submit(*self.options, *options, script, "--config", config, *self.changes)

    def equals(self, output: Path) -> bool:
        """Bit for bit."""
        assert tiny.read_record(output) == tiny.read_record(self.output)
        return digest(output / WEIGHTS) == digest(self.output / WEIGHTS)
