"""The process groups: tensor-parallel groups inside data-parallel ones, on top of an initialised torch.distributed."""

from __future__ import annotations

import torch.distributed as dist
from megatron.core import parallel_state
from torch.distributed import ProcessGroup


def initialize(tensor: int = 1, timeout_seconds: float = 1800) -> None:
    """Makes the groups, with ``timeout_seconds`` for their collectives.

    torch.distributed must be initialised. Raises ValueError if the degree does not divide the number of processes.
    """
    world = dist.get_world_size()
    if world % tensor:
        raise ValueError(f"parallel.tensor={tensor} must divide the number of processes={world}")
    if parallel_state.is_initialized():
        if tensor_size() != tensor:
            raise ValueError(f"parallel groups already exist with tensor={tensor_size()}, requested {tensor}")
        return
    minutes = timeout_seconds / 60
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tensor, distributed_timeout_minutes=minutes)


def is_initialized() -> bool:
    return dist.is_initialized() and bool(parallel_state.is_initialized())


def single_process() -> None:
    """Groups of one process, for inference and tests: no launcher, environment variables or rendezvous port needed."""
    if not dist.is_initialized():
        parallel_state.destroy_model_parallel()  # of a training that is over
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    initialize(1)


def tensor_rank() -> int:
    return int(parallel_state.get_tensor_model_parallel_rank())


def tensor_size() -> int:
    return int(parallel_state.get_tensor_model_parallel_world_size())


def tensor_group() -> ProcessGroup:
    return parallel_state.get_tensor_model_parallel_group()


def data_rank() -> int:
    return int(parallel_state.get_data_parallel_rank())


def data_size() -> int:
    return int(parallel_state.get_data_parallel_world_size())


def data_group() -> ProcessGroup:
    return parallel_state.get_data_parallel_group()
