"""Where a text says the same thing twice, side by side: what attention over embeddings is slow to see."""

# B batch, T tokens, N = REACH block sizes

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

REACH = 6  # tokens of the longest block that is looked for: a doubled word may have several pieces
FEATURES = 2 * REACH


def repeats(tokens: Tensor, inner: Tensor) -> Tensor:
    """[B, T, FEATURES] float in {0, 1}: for n = 1 … REACH whether the token of tokens [B, T] is in the second of two
    equal blocks of n tokens side by side; and then the same for the first of them.

    inner [B, T] bool: tokens that may be in such a block.
    """
    second = _second(tokens, inner)
    size, position = _sizes_and_positions(tokens)
    twin = position + size  # the token in the second block that repeats this one
    first = second.gather(2, _everywhere(twin.clamp_max(tokens.shape[1] - 1), tokens)) & (twin < tokens.shape[1])
    return torch.cat([second, first], dim=1).transpose(1, 2).float()


def second_copies(tokens: Tensor, inner: Tensor) -> Tensor:
    """[B, T] bool: in the second of two equal blocks of up to REACH tokens side by side."""
    return _second(tokens, inner).any(1)


def _second(tokens: Tensor, inner: Tensor) -> Tensor:
    """[B, N, T] bool: in the second of two equal blocks of n tokens; all sizes at once, for the sake of few kernels."""
    size, position = _sizes_and_positions(tokens)
    before = (position - size).clamp_min(0)
    same = (tokens[:, None] == tokens[:, before]) & inner[:, None] & inner[:, before] & (position >= size)
    begins = _sums(same, position, position + size) == size  # the next n tokens repeat those before
    return _sums(begins, position - size + 1, position + 1) > 0


def _sums(flags: Tensor, first: Tensor, end: Tensor) -> Tensor:
    """[B, N, T] how many of the flags [B, N, T] hold from ``first`` to before ``end``, each [N, T] or [T]."""
    total = pad(flags.long().cumsum(2), (1, 0))
    high, low = (_everywhere(index.clamp(0, flags.shape[2]), flags) for index in (end, first))
    return total.gather(2, high) - total.gather(2, low)


def _sizes_and_positions(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 1] and [T]"""
    size = torch.arange(1, REACH + 1, device=tokens.device)[:, None]
    return size, torch.arange(tokens.shape[1], device=tokens.device)


def _everywhere(index: Tensor, like: Tensor) -> Tensor:
    """[B, N, T] the same index [N, T] or [T] in each row of ``like`` [B, …]."""
    return index.expand(len(like), REACH, index.shape[-1])
