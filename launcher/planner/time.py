"""How long a step takes on given hardware: between two bounds, whatever of the communication computing hides.

The GPU does one thing while the host prepares the next, so that a step takes as long as the slower of the two. Bytes,
calls and operations are counted, rates are those of the hardware file. Left out are waiting for the slowest rank, for
data, and what small matrix products lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualmask.config.hardware import Hardware
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from launcher.planner import muon
from launcher.planner.flops import step_cost
from launcher.planner.launches import host_seconds
from launcher.planner.parameters import element, learning, parameters
from launcher.planner.passes import Shape
from launcher.planner.traffic import Traffic, traffic

ADAM = 34  # bytes that AdamW reads and writes of each parameter: two moments, a copy, a gradient, a weight
MUON = 38  # a momentum, a copy, a weight, a gradient that becomes a direction, the update


@dataclass(frozen=True)
class Cluster:
    nodes: int
    gpus_per_node: int

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Site:
    """What a run is planned for."""

    hardware: Hardware
    cluster: Cluster
    vocab_size: int


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step."""

    compute: float  # matrix products, repeated ones included
    optimizer: float  # reading and writing what it keeps; for Muon its products, and sending matrices to and fro
    data: float  # parameters and gradients, between data-parallel ranks
    tensor: float  # activations, between tensor-parallel ranks: a layer waits for them
    host: float = 0.0  # handing operations to the GPU, ZeRO-3's hooks, alignments

    @property
    def least(self) -> float:
        """Computing hides what data-parallel ranks send each other, or the other way round."""
        return max(self.compute + self.tensor, self.data, self.host) + self.optimizer

    @property
    def most(self) -> float:
        """The GPU does nothing of this at the same time as anything else; the host still runs ahead of it."""
        return max(self.compute + self.tensor + self.data, self.host) + self.optimizer


def step_time(run: RunConfig, stage: StageConfig, site: Site) -> StepTime:
    """Raises ValueError where the batch does not divide."""
    data, hardware = site.cluster.gpus // run.parallel.tensor, site.hardware
    sent = traffic(run, stage, site.vocab_size, data)
    shape = Shape(run.model, site.vocab_size, run.batch.sequences, run.parallel.activation_checkpointing)
    rate = hardware.peak(run.parallel.precision) * hardware.compute_share
    return StepTime(
        compute=step_cost(shape, stage).total / site.cluster.gpus / rate,
        optimizer=_optimizer(run, stage, site, data),
        data=_between_data_ranks(sent, hardware, site.cluster),
        tensor=_between_tensor_ranks(sent, hardware),
        host=host_seconds(run, stage, site.vocab_size, data, hardware),
    )


def _optimizer(run: RunConfig, stage: StageConfig, site: Site, data: int) -> float:
    taught, hardware = learning(parameters(run.model, site.vocab_size), stage), site.hardware
    moved = sum((MUON if muon.is_muons(run, p) else ADAM) * p.size(run.parallel.tensor) for p in taught)
    held = moved / (data if run.parallel.zero_stage else 1)
    products = muon.operations(run, taught, data) / (hardware.peak(run.parallel.precision) * hardware.compute_share)
    sent = muon.sent(run, taught, data)
    between = _between_data_ranks(sent, hardware, site.cluster) + _between_tensor_ranks(sent, hardware)
    if run.parallel.offload == "optimizer":
        return _offloaded_update(run, held, site) + products + between
    return held / (hardware.memory_gb_per_s * 1e9 * hardware.bandwidth_share) + products + between


def _offloaded_update(run: RunConfig, held: float, site: Site) -> float:
    """Gradients go to the host and weights come back; the host reads and writes what the optimizer keeps, all ranks of
    a node in the same memory."""
    moved = held / ADAM * 2 * element(run.parallel)
    across = moved / site.hardware.pcie_gb_per_s
    updated = held * site.cluster.gpus_per_node / site.hardware.host_gb_per_s
    return (across + updated) / (1e9 * site.hardware.bandwidth_share)


def _between_tensor_ranks(sent: Traffic, hardware: Hardware) -> float:
    """Their groups lie within nodes."""
    hops = sent.tensor_calls * 2 * (sent.tensor - 1)
    volume = sent.activations / (hardware.node_gb_per_s * 1e9 * hardware.bandwidth_share)
    return volume + hops * hardware.hop_microseconds * 1e-6


def _between_data_ranks(sent: Traffic, hardware: Hardware, cluster: Cluster) -> float:
    """Rings run through all nodes, as many as a node has members of a group, each over an adapter of its own: what a
    rank sends crosses the network once for all the group's members of a node."""
    volume = sent.parameters + sent.gradients
    beside = cluster.gpus_per_node // sent.tensor  # members of a data-parallel group on a node
    inside = volume / hardware.node_gb_per_s if beside > 1 else 0.0
    outside = volume / (beside * hardware.network_gb_per_s) if cluster.nodes > 1 else 0.0
    hops = sent.data_calls * (sent.data - 1) * (2 if sent.reduced else 1)
    return max(inside, outside) / (1e9 * hardware.bandwidth_share) + hops * hardware.hop_microseconds * 1e-6


def run_seconds(times: Sequence[tuple[StageConfig, StepTime]]) -> tuple[float, float]:
    """(least, most) for all steps of these stages, each at its stage's last number of rounds."""
    return sum(stage.steps * time.least for stage, time in times), sum(stage.steps * t.most for stage, t in times)
