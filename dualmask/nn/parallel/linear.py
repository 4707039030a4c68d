"""Linear layers split over the tensor-parallel group; the layers that use them need not know the degree."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.model_parallel_config import ModelParallelConfig
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    copy_to_tensor_model_parallel_region,
)
from torch import Tensor, nn
from torch.nn.functional import linear

from dualmask.nn import initial
from dualmask.nn.hidden import Rows, mark
from dualmask.nn.parallel import mesh, sequence
from dualmask.nn.parallel.slices import slice_of, split


def megatron_config() -> ModelParallelConfig:
    """Megatron draws no weights: its ranks would all draw the whole matrix, each to keep its part (see initial.py)."""
    return ModelParallelConfig(
        tensor_model_parallel_size=mesh.tensor_size(),
        use_cpu_initialization=True,
        perform_initialization=False,
        params_dtype=torch.float32,
        gradient_accumulation_fusion=False,
        async_tensor_model_parallel_allreduce=False,
    )


def alone() -> bool:
    """Whether a model on one rank only answers: then Megatron's layers do nothing but multiply, and much of the time of
    a short text would be that of the host in them. Not in training, also where that needs no gradient: the last digits
    of its sums stay what they were."""
    return torch.is_inference_mode_enabled() and mesh.tensor_size() == 1


def shared(x: Tensor) -> Tensor:
    """A replicated tensor that each rank uses for its own part: identity forward, gradients summed backward."""
    return x if alone() else copy_to_tensor_model_parallel_region(x)


@torch.no_grad()
def store_by_columns(model: nn.Module) -> None:
    """From now on the weights [d_out, d_in] of the linear layers lie in memory column by column. That is for a model
    that only answers, on a CPU: the product with the few rows of one short text takes two thirds of the time then, that
    with many rows as long as before."""
    for layer in model.modules():
        if isinstance(layer, Column | Row | nn.Linear):
            layer.weight.data = layer.weight.t().contiguous().t()


def begin(weight: Tensor, axis: int, std: float) -> None:
    """N(0, std²) for this rank's slice along ``axis``; says that it is one."""
    split(weight, axis)
    initial.begin(weight, initial.Normal(std), slice_of(weight))


def drawn_elsewhere(weight: Tensor) -> Tensor:
    """Megatron asks for a function that draws, and does not call it."""
    raise NotImplementedError


class Column(ColumnParallelLinear):
    """[…, d_in] replicated → […, d_out / tensor] split over the last axis. No bias.

    ``rows``: how they form matrices, where it is more than one. ``table``: what comes in is one-hot.
    """

    tokens_split = False  # a rank's part of the tokens [m, d_in] comes in, all go out (sequence.py)

    def __init__(self, d_in: int, d_out: int, *, std: float, rows: Rows | None = None, table: bool = False) -> None:
        super().__init__(
            d_in, d_out, config=megatron_config(), init_method=drawn_elsewhere, bias=False, gather_output=False
        )
        begin(self.weight, 0, std)
        if not table:
            mark(self.weight, rows)

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens_split:
            return sequence.gathered_linear(x, self.weight)
        return linear(x, self.weight) if alone() else super().forward(x)[0]


class Row(RowParallelLinear):
    """[…, d_in / tensor] split → […, d_out] replicated (summed over the group). No bias.

    ``head``: its results are logits, not hidden states.
    """

    tokens_split = False  # all tokens come in, this rank's part [m, d_out] goes out

    def __init__(self, d_in: int, d_out: int, *, std: float, head: bool = False) -> None:
        super().__init__(
            d_in,
            d_out,
            config=megatron_config(),
            init_method=drawn_elsewhere,
            bias=False,
            input_is_parallel=True,
            skip_bias_add=False,
        )
        begin(self.weight, 1, std)
        if not head:
            mark(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens_split:
            return sequence.scatter_sum(linear(x, self.weight))
        return linear(x, self.weight) if alone() else super().forward(x)[0]

    def _forward_impl(self, *arguments: Any, **options: Any) -> Tensor:
        """With the group that the layer knows: Megatron gives none, and warns of it whenever it is called, which takes
        the host's time and cuts compiled blocks in pieces."""
        return super()._forward_impl(*arguments, **options | {"tp_group": self.tp_group})
