"""What this machine has room for: a run that cannot start is refused, one that can takes what its GPU has left."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from dualmask.config.hardware import GIB
from dualmask.config.load import ConfigError
from dualmask.nn.parallel import mesh
from launcher.planner.distances import settled, with_reuse
from launcher.planner.host import host_bytes
from launcher.planner.memory import at_initialize
from launcher.preflight import Preflight

USABLE = 0.9  # of a GPU's memory; the rest is for CUDA, NCCL and what torch's allocator cannot use
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def prepared(ready: Preflight, world: int, local: int) -> Preflight:
    """With ZeRO-3's reuse distance settled, if the run leaves it open and there are GPUs. ``local``: ranks here.

    Makes and leaves process groups of one; call it before any others are made. Raises ConfigError where this machine's
    memory is too small for the run to start.
    """
    try:
        data_size = world // ready.run.parallel.tensor
        if ready.run.device == "cpu" or not torch.cuda.is_available():
            on_cpu = ready.run.model_copy(update={"device": "cpu"})
            _require_host(replace(ready, run=on_cpu), data_size, local)
            return ready
        _require_host(ready, data_size, local)
        usable = torch.cuda.get_device_properties(0).total_memory * USABLE
        _require_device(ready, data_size, usable)
        return replace(ready, run=settled(ready.run, ready.vocab_size, data_size, usable))
    finally:
        mesh.leave()


def agreed(ready: Preflight) -> Preflight:
    """With the smallest reuse distance of all ranks, whose GPUs may differ: they must gather alike. Collective."""
    everyones: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, ready.run.parallel.max_reuse_distance)
    known = [reuse for reuse in everyones if reuse is not None]
    return replace(ready, run=with_reuse(ready.run, min(known))) if known else ready


def host_memory() -> int:
    """Bytes of this machine, or of the part of it that this process may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTROL_GROUP.read_text().strip() if CONTROL_GROUP.is_file() else "max"
    return min(whole, int(limit)) if limit.isdecimal() else whole


def _require_host(ready: Preflight, data_size: int, local: int) -> None:
    there = host_memory()
    for phase, held in host_bytes(ready.run, ready.vocab_size, data_size).items():
        need = local * held
        if need > there:
            raise ConfigError(
                f"{ready.run.name} cannot start: {phase}, {local} processes here need {need / GIB:.1f} GiB, and "
                f"this machine has {there / GIB:.1f} GiB of memory: spread it over more machines, or {_share(ready)}"
            )


def _require_device(ready: Preflight, data_size: int, usable: float) -> None:
    for stage in ready.run.stages:
        made = at_initialize(ready.run, stage, ready.vocab_size, data_size)
        if made > usable:
            raise ConfigError(
                f"{ready.run.name} cannot start: making the engine of stage {stage.name} takes {made / GIB:.1f} GiB of "
                f"this GPU, which has {usable / GIB:.1f} GiB for it: take more GPUs, or {_share(ready)}"
            )


def _share(ready: Preflight) -> str:
    parallel = ready.run.parallel
    if parallel.zero_stage < 3:
        return f"set parallel.zero_stage=3 (it is {parallel.zero_stage})"
    return f"raise parallel.tensor={parallel.tensor}"
