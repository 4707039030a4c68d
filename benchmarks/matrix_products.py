"""The matrix products of a piece of work, recorded by shape and done again with nothing around them: the floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Operand:
    """A matrix, or a batch of them, as it lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> Operand:
        return cls(tuple(x.shape), tuple(x.stride()), x.dtype, x.device)

    def fresh(self) -> Tensor:
        """Rows may share their memory, as those of an expanded tensor do."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        memory = torch.randn(last + 1, dtype=self.dtype, device=self.device)
        return memory.as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class Product:
    left: Operand
    right: Operand

    def prepared(self) -> Callable[[], object]:
        left, right = self.left.fresh(), self.right.fresh()
        into = torch.empty(*left.shape[:-1], right.shape[-1], dtype=left.dtype, device=left.device)
        multiply = torch.mm if left.ndim == 2 else torch.bmm
        return lambda: multiply(left, right, out=into)


class Recorder(TorchDispatchMode):
    """Counts every product while it is on. Fused attention counts as the products that it is made of: two forward,
    four backward (what is computed again there is the kernel's own affair)."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = function.overloadpacket
        if packet in (aten.mm, aten.bmm):
            self._count(args[0], args[1])
        elif packet in (aten.addmm, aten.baddbmm):
            self._count(args[1], args[2])
        elif packet.__name__.startswith("_scaled_dot_product"):
            backward = packet.__name__.endswith("_backward")
            query, key, value = args[backward : backward + 3]
            self._attention(query, key, value, times=2 if backward else 1)
        return function(*args, **(kwargs or {}))

    def _count(self, left: Tensor, right: Tensor, times: int = 1) -> None:
        self.products[Product(Operand.of(left), Operand.of(right))] += times

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, times: int) -> None:
        q, k, v = (torch.empty(x.shape, dtype=x.dtype, device=x.device).flatten(0, 1) for x in (query, key, value))
        self._count(q, k.transpose(1, 2), times)
        self._count(q.new_empty(*q.shape[:2], k.shape[1]), v, times)


def record(work: Callable[[], object]) -> Counter[Product]:
    with Recorder() as recorder:
        work()
    return recorder.products


def loop(products: Counter[Product]) -> Callable[[], None]:
    """Does them all, as often as they were counted."""
    prepared = [(product.prepared(), times) for product, times in products.items()]

    def run() -> None:
        for multiply, times in prepared:
            for _ in range(times):
                multiply()

    return run
