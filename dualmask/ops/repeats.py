"""Where a text says the same thing twice, side by side: what attention over embeddings is slow to see."""

# B batch, T tokens

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
    second = [_second(tokens, inner, size) for size in range(1, REACH + 1)]
    first = [_from_right(part, size) for size, part in enumerate(second, 1)]
    return torch.stack([*second, *first], dim=-1).float()


def _second(tokens: Tensor, inner: Tensor, size: int) -> Tensor:
    """[B, T] bool: in the second of two equal blocks of ``size`` tokens."""
    tokens, inner = pad(tokens, (0, size)), pad(inner, (0, size))  # so that even a short text has room for a block
    same = pad((tokens[:, size:] == tokens[:, :-size]) & inner[:, size:] & inner[:, :-size], (size, 0))
    begins = _sums(pad(same, (0, size - 1)), size) == size  # [B, T] the next ``size`` tokens repeat those before
    return (_sums(pad(begins, (size - 1, 0)), size) > 0)[:, :-size]


def _sums(flags: Tensor, size: int) -> Tensor:
    """[B, T - size + 1] how many of ``size`` neighbouring flags [B, T] hold."""
    total = pad(flags.long().cumsum(1), (1, 0))
    return total[:, size:] - total[:, :-size]


def _from_right(flags: Tensor, size: int) -> Tensor:
    return pad(flags, (0, size))[:, size:]
