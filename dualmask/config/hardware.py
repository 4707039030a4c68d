"""What a GPU and its cables can do, from a file in configs/hardware: figures of their makers, not measured here.

What a run reaches of them is an assumption, which stands in the same file. Pure: imports neither torch nor an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dualmask.config.load import ConfigError, load_yaml_model
from dualmask.config.section import Positive, Section

GIB = 2**30
Amount = Annotated[float, Field(gt=0.0)]
Part = Annotated[float, Field(gt=0.0, le=1.0)]


class Hardware(Section):
    name: str = Field(min_length=1)
    memory_gib: Amount = Field(description="of a GPU, as a process sees it, GiB")
    bf16_tflops: Amount = Field(description="dense matrix products in bf16, 10^12 operations a second")
    fp32_tflops: Amount = Field(description="the same in float32")
    memory_gb_per_s: Amount = Field(description="of a GPU's memory, 10^9 bytes a second")
    node_gb_per_s: Amount = Field(description="that a GPU sends to others of its node, 10^9 bytes a second, one way")
    network_gb_per_s: Amount = Field(description="that a GPU sends to other nodes, 10^9 bytes a second, one way")
    gpus_per_node: Positive = 8
    host_memory_gib: Amount | None = Field(None, description="of a node's host, GiB; None: it is not planned for")
    host_process_gib: Annotated[float, Field(ge=0.0)] = Field(
        3.0, description="assumed: of the host, for a process that holds nothing yet: Python, torch, CUDA"
    )
    memory_share: Part = Field(0.9, description="assumed: of the memory, that a run may fill; the rest is a margin")
    compute_share: Part = Field(0.4, description="assumed: of the peak, that matrix products and all around them reach")
    bandwidth_share: Part = Field(0.75, description="assumed: of all bandwidths, that is reached")
    hop_microseconds: Annotated[float, Field(ge=0.0)] = Field(
        3.0, description="assumed: from one GPU of a ring to the next; a collective of n makes n − 1 hops"
    )
    pcie_gb_per_s: Amount = Field(
        25.0, description="between a GPU and its host, 10^9 bytes a second, one way: what is offloaded goes through it"
    )
    host_gb_per_s: Amount = Field(
        200.0, description="of the host's memory, 10^9 bytes a second, shared by a node's GPUs: an offloaded optimizer"
    )
    launch_microseconds: Annotated[float, Field(ge=0.0)] = Field(
        30.0,
        description="assumed: of the host, for an operation that it hands to the GPU (launcher/planner/launches.py)",
    )
    hook_microseconds: Annotated[float, Field(ge=0.0)] = Field(
        300.0, description="assumed: of the host, for ZeRO-3's hooks around a call of a module, forward or backward"
    )
    price_per_hour: Amount | None = Field(None, description="of one GPU, in whatever currency; None: no cost is given")

    @property
    def usable_bytes(self) -> float:
        return self.memory_gib * GIB * self.memory_share

    def peak(self, precision: str) -> float:
        """Operations a second."""
        return (self.bf16_tflops if precision == "bf16" else self.fp32_tflops) * 1e12


def load_hardware(name: str, folder: Path) -> Hardware:
    """``name``: the path of a file, or the name of one in ``folder``. Raises ConfigError."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in known:
        return load_yaml_model(folder / f"{name}.yaml", Hardware)
    if not Path(name).is_file():
        raise ConfigError(f"--hardware {name}: neither a file nor one of {', '.join(known)}")
    return load_yaml_model(name, Hardware)
