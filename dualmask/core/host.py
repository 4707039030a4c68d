"""The doors between the host and the device. Nothing else of the project moves values in a training step.

On CUDA the host runs ahead of the device: it queues work, and waits only where it must know a value. Every such wait
in a step is a ``wait`` of this file, so that waits can be counted, put together and spread out. What is known on the
host is a numpy array, what is on the device a tensor: a tensor that a step reads in any other way (``.item()``,
``.tolist()``, a bool index, ``nonzero`` without a size) is a wait that nobody planned. ``benchmarks/host_waits.py``
finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Result = TypeVar("Result")


def readable(x: Tensor) -> bool:
    """Whether the host can read a tensor without waiting for a device."""
    return x.device.type == "cpu"


class Copy:
    """Values of tensors on one device on their way to the host: begun at once, awaited when they are needed."""

    def __init__(self, *tensors: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = [tensor.detach() for tensor in tensors]
        if tensors[0].is_cuda:
            self._values = [_pinned_like(tensor).copy_(tensor, non_blocking=True) for tensor in self._values]
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> list[Array]:
        """The values, on any thread. The device goes on with what was queued behind the copy."""
        if self._event is not None:
            self._event.synchronize()
        return [value.numpy() for value in self._values]


def to_device(value: Array | Tensor, device: torch.device) -> Tensor:
    """A tensor with the values of the host, without a wait: in the order of what is queued."""
    tensor = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _pinned_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


class Work(Generic[Result]):
    """What a thread makes of values that are on their way to the host, while the device and the caller go on."""

    def __init__(self, pool: ThreadPoolExecutor, function: Callable[..., Result], copy: Copy) -> None:
        """``function`` is called with the arrays of the copy."""
        self._future = pool.submit(lambda: function(*copy.wait()))

    def wait(self) -> Result:
        """Raises what the function raised."""
        return self._future.result()
