"""Counts the bytes that autograd keeps for backward passes."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedBytes:
    """Bytes of the distinct storages that autograd keeps while ``hooks()`` are on: now, and at their peak.

    ``parameters`` do not count.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.now = self.peak = 0
        self._parameters = list(parameters)
        self._holders: Counter[int] = Counter()

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: Tensor) -> _Held:
        held, storage = _Held(tensor), tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        # looked up each time: ZeRO-3 gives parameters other storages
        if size and all(address != parameter.untyped_storage().data_ptr() for parameter in self._parameters):
            self.now += size if self._holders[address] == 0 else 0
            self.peak = max(self.peak, self.now)
            self._holders[address] += 1
            weakref.finalize(held, self._release, address, size)
        return held

    def _release(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        self.now -= size if self._holders[address] == 0 else 0


class _Held:
    """A tensor without its node of the graph: an output that its own operation saves would keep both alive for ever."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor if isinstance(tensor, nn.Parameter) else tensor.detach()
