"""What DeepSpeed leaves to its user: memory for parameters that were made on ``meta``, and an end that frees it.

Beside engine.py and partition.py the only importer of deepspeed.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import mmap
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from torch import Tensor, nn

from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.mpu import deepspeed_mpu

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # parameters of glibc's mallopt


def allocate(module: nn.Module, settings: Mapping[str, Any], device: torch.device) -> None:
    """Gives the parameters that lie on ``meta`` their memory on ``device``, filled with zeros.

    Under ZeRO-3 each rank allocates its own part, and for a moment one parameter; otherwise this rank's slice. Handed
    over whole, the model would stand on the device before DeepSpeed divides it. Raises TypeError for any other tensor
    that lies on ``meta``: nobody could say what it holds.
    """
    _refuse_other_tensors(module)
    dtype = torch.bfloat16 if settings["bf16"]["enabled"] else torch.float32
    divide = _divider(settings, dtype) if settings["zero_optimization"]["stage"] == 3 else None
    made: dict[nn.Parameter, nn.Parameter] = {}  # a parameter may have several names
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if parameter not in made:
                made[parameter] = _with_memory(parameter, dtype, device)
                if divide is not None:
                    divide(made[parameter])
            owner._parameters[name] = made[parameter]
    trim_heap()  # of the parameters that were divided


def _with_memory(parameter: nn.Parameter, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    empty = torch.zeros(parameter.shape, dtype=dtype, device=device)
    new = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    new.__dict__.update(parameter.__dict__)  # how it is split, which rule it begins by, whether Muon trains it
    return new


def _divider(settings: Mapping[str, Any], dtype: torch.dtype) -> Any:
    group = mesh.data_group()
    init = deepspeed.zero.Init(
        data_parallel_group=group, config_dict_or_path=dict(settings), dtype=dtype, mpu=deepspeed_mpu()
    )

    def divide(parameter: nn.Parameter) -> None:
        init._convert_to_deepspeed_param(parameter)  # as Init does, less its broadcast of values that are not there yet
        parameter.partition()
        if parameter.ds_tensor.device.type == "cpu":
            parameter.ds_tensor.data = _on_pages_of_its_own(parameter.ds_tensor.data)

    return divide


def _on_pages_of_its_own(tensor: Tensor) -> Tensor:
    """A copy that no heap holds: its memory goes back to the system when DeepSpeed has moved it into one flat tensor.

    A heap that training steps have left would give a free piece for it and keep that, as large as the share.
    """
    if not tensor.numel():
        return tensor
    pages = mmap.mmap(-1, tensor.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


def _refuse_other_tensors(module: nn.Module) -> None:
    for prefix, owner in module.named_modules():
        for name, value in {**owner._buffers, **vars(owner)}.items():
            if isinstance(value, Tensor) and value.is_meta:
                raise TypeError(
                    f"{prefix}.{name}: a tensor of a model that is built on meta, but no parameter: make it where it "
                    'is used, or with device="cpu"'
                )


def shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """Of this tensor-parallel rank's slice, also where ZeRO-3 has taken its memory."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def release(engine: Any) -> None:
    """Gives up what a pass outside of training left gathered. Small parameters stay gathered, as in training."""
    if (offload := getattr(engine.optimizer, "parameter_offload", None)) is None:
        return  # not ZeRO-3
    coordinator = offload.get_param_coordinator()
    waiting = coordinator._PartitionedParameterCoordinator__inflight_param_registry
    for parameter in engine.module.parameters():
        if parameter.ds_persist or parameter.ds_status is ZeroParamStatus.NOT_AVAILABLE:
            continue
        if parameter in waiting:
            waiting.pop(parameter).wait()
        parameter.ds_active_sub_modules.clear()
        coordinator._PartitionedParameterCoordinator__release_param(parameter)  # which counts what is gathered


def forget(module: nn.Module) -> None:
    """Drops the references of DeepSpeed 0.19.8 that outlive an engine, and with it keep its model and optimizer."""
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [other for other in stack if other is not module]
    cached = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(cached).nonlocals["func"].cache_clear()  # behind a decorator


def one_heap() -> None:
    """For threads that are not started yet: glibc would give each a heap of its own, and keeps the end of every one."""
    if libc := _glibc():
        libc.mallopt(_ARENA_MAX, 1)


def trim_heap() -> None:
    """Gives what was freed back to the system: glibc keeps as much as 2 GB of a rank's freed tensors."""
    gc.collect()
    if libc := _glibc():
        libc.malloc_trim(0)


@contextmanager
def no_heap() -> Iterator[None]:
    """Within it a tensor on the CPU gets pages of its own, which go back to the system when it is freed, unless a piece
    of the heap is free that it fits into.

    Weights that DeepSpeed copies into one flat tensor would leave a hole of their size in the heap, which no tensor of
    another size can use. Steps are faster with a heap, so they have one.
    """
    libc = _glibc()
    if libc:
        libc.mallopt(_MMAP_THRESHOLD, 2**16)
    try:
        yield
    finally:
        trim_heap()
        if libc:  # where glibc's own adjustment ends, which stops when it is told something
            libc.mallopt(_MMAP_THRESHOLD, 2**25)
            libc.mallopt(_TRIM_THRESHOLD, 2**26)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
