"""How parameters are split over the tensor-parallel ranks, in the words of Megatron."""

from __future__ import annotations

from torch import Tensor

from dualmask.nn.parallel import mesh
from dualmask.nn.slices import Slice


def split(parameter: Tensor, axis: int) -> None:
    """Says that ``parameter`` is this rank's slice along ``axis``."""
    parameter.tensor_model_parallel = True
    parameter.partition_dim = axis
    parameter.partition_stride = 1


def slice_of(parameter: Tensor, shape: tuple[int, ...] | None = None) -> Slice:
    """``shape``: of a parameter whose memory ZeRO-3 took."""
    shape = tuple(parameter.shape) if shape is None else shape
    return Slice(shape, split_axis(parameter), mesh.tensor_rank(), mesh.tensor_size())


def split_axis(parameter: Tensor) -> int | None:
    """The axis along which it is split over the tensor-parallel ranks; None: it is replicated."""
    if mesh.tensor_size() == 1 or not getattr(parameter, "tensor_model_parallel", False):
        return None
    return int(parameter.partition_dim)
