"""Sequence parallelism (Korthikanti et al. 2022): between its split layers, each tensor-parallel rank of a trunk keeps
the states of a part of the tokens, not of all of them.

Where a column-parallel layer needs all tokens they are gathered, and what a row-parallel layer sums is scattered again:
these are the bytes of the all-reduces that they replace. Megatron's own functions for it call CUDA, on CPU ranks as
well. Tokens are padded with zeros to a multiple of the degree; no other token sees the padding.
"""

# M tokens of all ranks, m tokens of this rank, D width; […] the tokens as the layout has them

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm, linear, pad

from dualmask.nn.parallel import mesh


def split(x: Tensor) -> Tensor:
    """[m, D] this rank's part of the replicated tokens […, D]."""
    return _Split.apply(x.flatten(0, -2))


def join(x: Tensor, tokens: torch.Size) -> Tensor:
    """[*tokens, D] replicated, from each rank's part [m, D]."""
    return shaped(_Join.apply(x), tokens)


def gathered_linear(x: Tensor, weight: Tensor) -> Tensor:
    """[M, D'] all tokens × weightᵀ, from this rank's part [m, D]. They are gathered again in the backward pass, so that
    no rank keeps them all."""
    return _GatheredLinear.apply(x, weight)


def scatter_sum(x: Tensor) -> Tensor:
    """[m, D] this rank's part of the sum over ranks of […, D]."""
    return _ScatterSum.apply(x.flatten(0, -2))


def shaped(x: Tensor, tokens: torch.Size) -> Tensor:
    """[*tokens, D] from gathered tokens [M, D], without the padding; what has this shape is left as it is."""
    return x if x.shape[:-1] == tokens else x[: tokens.numel()].unflatten(0, tokens)


class Norm(nn.LayerNorm):
    """LayerNorm of the tokens of a trunk. Where these are split, the gradients of the ranks' parts add up."""

    tokens_split = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.tokens_split:
            return super().forward(x)
        weight, bias = map(copy_to_tensor_model_parallel_region, (self.weight, self.bias))
        return layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class _Scattered(torch.autograd.Function):
    """Each rank has the gradient of its part, and all need that of the whole."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _all_parts(gradient)[: ctx.tokens]


class _Split(_Scattered):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.tokens = len(x)
        return _own_part(x)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_parts(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _own_part(gradient)


class _GatheredLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(_all_parts(x), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_weight = gradient.mT @ _all_parts(x) if ctx.needs_input_grad[1] else None
        return _sum_of_parts(gradient @ weight), of_weight


class _ScatterSum(_Scattered):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.tokens = len(x)
        return _sum_of_parts(x)


def _padded(x: Tensor) -> Tensor:
    return pad(x, (0, 0, 0, -len(x) % mesh.tensor_size()))


def _own_part(x: Tensor) -> Tensor:
    return _padded(x).chunk(mesh.tensor_size())[mesh.tensor_rank()].clone()


def _all_parts(x: Tensor) -> Tensor:
    whole = x.new_empty(len(x) * mesh.tensor_size(), x.shape[1])
    dist.all_gather_into_tensor(whole, x.contiguous(), group=mesh.tensor_group())
    return whole


def _sum_of_parts(x: Tensor) -> Tensor:
    whole = _padded(x).contiguous()
    own = whole.new_empty(len(whole) // mesh.tensor_size(), whole.shape[1])
    dist.reduce_scatter_tensor(own, whole, group=mesh.tensor_group())
    return own
