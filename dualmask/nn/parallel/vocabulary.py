"""The token table, its logits and their cross entropy, with the vocabulary split over the tensor-parallel group."""

# V vocabulary, D width, M slots

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import (
    VocabParallelEmbedding,
    reduce_from_tensor_model_parallel_region,
)
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualmask.nn import initial
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.linear import alone, begin, drawn_elsewhere, megatron_config, shared
from dualmask.nn.parallel.slices import split

MULTIPLE = 64  # rows are padded to a multiple of this, so that any sensible degree divides the table


def padded_size(vocab_size: int) -> int:
    return -(-vocab_size // MULTIPLE) * MULTIPLE


class TokenTable(VocabParallelEmbedding):
    """One table for embedding and logits. Both go through ``forward``, so that ZeRO-3 gathers it for either use."""

    def __init__(self, vocab_size: int, width: int, *, std: float, bias: bool = True) -> None:
        """``bias``: of the logits; False for a table that is used for embedding only."""
        self.vocab_size = vocab_size
        rows = padded_size(vocab_size)
        super().__init__(rows, width, config=megatron_config(), init_method=drawn_elsewhere)
        begin(self.weight, 0, std)
        self.output_bias: nn.Parameter | None = None
        if not bias:
            return
        self.output_bias = nn.Parameter(torch.empty(rows // mesh.tensor_size()))
        split(self.output_bias, 0)
        initial.begin(self.output_bias, initial.Constant(0.0))

    def forward(self, x: Tensor, *, logits: bool = False) -> Tensor:
        """ids […] → embeddings […, D]; with ``logits``: states […, D] → […, padded V / tensor]."""
        if not logits:
            return nn.functional.embedding(x, self.weight) if alone() else super().forward(x)
        assert self.output_bias is not None
        return nn.functional.linear(shared(x), self.weight, self.output_bias.to(x.dtype))


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """[M] from logits [M, V / tensor] and global ids [M], in float32."""
    return _CrossEntropy.apply(logits, target)


class _CrossEntropy(torch.autograd.Function):
    """The gradient, softmax minus one-hot, reuses the memory of the log-softmax: autograd would allocate two more."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_prob = _log_softmax(logits.float())
        own = target - logits.shape[-1] * mesh.tensor_rank()
        in_range = (own >= 0) & (own < logits.shape[-1])
        own = torch.where(in_range, own, 0)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(log_prob, own, in_range)
        nats = torch.where(in_range, -log_prob.gather(-1, own[:, None]).squeeze(-1), 0.0)
        if mesh.tensor_size() > 1:
            dist.all_reduce(nats, group=mesh.tensor_group())
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_prob, own, in_range = ctx.saved_tensors
        change = log_prob.exp_().mul_(gradient[:, None])
        change.scatter_add_(-1, own[:, None], -(gradient * in_range)[:, None])
        return change.to(ctx.dtype), None


def _log_softmax(logits: Tensor) -> Tensor:
    """[M, V / tensor] log-probabilities, normalised over the whole vocabulary. No gradient."""
    log_prob = logits.log_softmax(-1)
    if mesh.tensor_size() == 1:
        return log_prob
    own = logits.amax(-1) - log_prob.amax(-1)  # log Σ exp over this rank's part of the vocabulary
    highest = own.clone()
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=mesh.tensor_group())
    total = torch.exp(own - highest)
    dist.all_reduce(total, group=mesh.tensor_group())
    return log_prob.add_((own - highest - total.log())[:, None])


def log_normaliser(logits: Tensor) -> Tensor:
    """[M] log Σ exp over the whole vocabulary, from logits [M, V / tensor]; float32."""
    return _log_sum(logits.float())[0]


def entropy(logits: Tensor) -> Tensor:
    """[M] entropy in nats, from logits [M, V / tensor], in float32; differentiable."""
    logits = logits.float()
    log_sum, weight, total = _log_sum(logits)
    return log_sum - reduce_from_tensor_model_parallel_region((weight * logits).sum(-1)) / total


def _log_sum(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[M] log Σ exp, [M, V / tensor] exponentials divided by that of the highest logit, and their sum [M]."""
    highest = logits.detach().amax(-1)
    if mesh.tensor_size() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=mesh.tensor_group())
    weight = torch.exp(logits - highest[:, None])
    total = reduce_from_tensor_model_parallel_region(weight.sum(-1))
    return highest + total.log(), weight, total


def target_and_best_nll(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods [M] in nats of the targets and of the most likely tokens. No gradient."""
    logits = logits.detach()
    nats = cross_entropy(logits, target)
    if mesh.tensor_size() == 1:
        best = logits.float().amax(-1) - logits.float().gather(-1, target[:, None]).squeeze(-1)
        return nats, nats - best
    _, likeliest = top_logits(logits, 1, range(logits.shape[-1] * mesh.tensor_size()))
    return nats, cross_entropy(logits, likeliest.squeeze(-1))


def whole_vocabulary(logits: Tensor, vocab_size: int) -> Tensor:
    """[…, vocab_size]: the logits of all tensor-parallel ranks, without the table's padding. No gradient."""
    if mesh.tensor_size() > 1:
        logits = _all_gather(logits.detach())
    return logits[..., :vocab_size]


def top_logits(logits: Tensor, number: int, allowed: range, *, refused: Collection[int] = ()) -> tuple[Tensor, Tensor]:
    """The ``number`` highest logits [M, N] among the ids ``allowed``, and these ids [M, N], the same on every rank.

    logits [M, V / tensor]; ``refused``: ids within ``allowed`` that are excluded. The gradient of each value goes to
    the rank that holds its logit: no rank needs the logits of the whole vocabulary.
    """
    first = logits.shape[-1] * mesh.tensor_rank()
    ids = torch.arange(first, first + logits.shape[-1], device=logits.device)
    inside = (ids >= allowed.start) & (ids < allowed.stop)
    for refused_id in refused:
        inside = inside & (ids != refused_id)
    values, index = logits.float().masked_fill(~inside, float("-inf")).topk(min(number, logits.shape[-1]), dim=-1)
    if mesh.tensor_size() == 1:
        return values, index
    candidates = _all_gather(values.detach())
    best = _all_gather(index + first).gather(-1, candidates.topk(min(number, candidates.shape[-1]), dim=-1).indices)
    in_range = (best >= first) & (best < first + logits.shape[-1])
    own = logits.float().gather(-1, (best - first).clamp(0, logits.shape[-1] - 1))
    return reduce_from_tensor_model_parallel_region(torch.where(in_range, own, 0.0)), best


def _all_gather(part: Tensor) -> Tensor:
    """[…, N · tensor]: the concatenated parts of all tensor-parallel ranks. No gradient."""
    parts = [torch.empty_like(part) for _ in range(mesh.tensor_size())]
    dist.all_gather(parts, part.contiguous(), group=mesh.tensor_group())
    return torch.cat(parts, dim=-1)
