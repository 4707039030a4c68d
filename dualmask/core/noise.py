"""Counter-based randomness: every draw is a hash of (sequence key, stream name, step, index); there is no RNG state.

A draw therefore does not depend on the other sequences of the batch, on the number of ranks, or on recomputation of
the forward pass under activation checkpointing, and a resumed run needs no generator state.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

# splitmix64 (Steele, Lea, Flood 2014) in wrapping int64 arithmetic
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scrambles int64 values; a bijection."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _salt(stream: str, step: int) -> int:
    """``mix`` of a stream and a step, on the host: a tensor of it would make the host wait for the device."""
    x = zlib.crc32(stream.encode()) * _GOLDEN % 2**63 + step
    x = (x ^ x >> 30) * _MIX_1 % 2**64
    x = (x ^ x >> 27) * _MIX_2 % 2**64
    x ^= x >> 31
    return x - 2**64 if x >= 2**63 else x


def uniform(key: Tensor, stream: str, step: int, *shape: int) -> Tensor:
    """[B, *shape] float32 in (0, 1), both ends excluded, from ``key`` [B] int64."""
    index = torch.arange(math.prod(shape), device=key.device)
    return uniform_at(key, stream, step, index).view(len(key), *shape)


def uniform_at(key: Tensor, stream: str, step: int, index: Tensor) -> Tensor:
    """[B, N] the draws of ``uniform`` at the indices [N] or [B, N], without computing the others."""
    bits = bits_at(key[:, None], stream, index, step)
    return ((_shift(bits, 41) + 0.5) / 2**23).float()


def uniform_in_steps(key: Tensor, stream: str, step: Tensor) -> Tensor:
    """[M] the draws of ``uniform`` without a shape, each element of ``key`` [M] at its own ``step`` [M]."""
    salts = torch.tensor([_salt(stream, number) for number in step.tolist()], device=key.device)
    bits = mix(mix(key ^ salts) + _GOLDEN)
    return ((_shift(bits, 41) + 0.5) / 2**23).float()


def bits_at(key: Tensor, stream: str, index: Tensor, step: int = 0) -> Tensor:
    """64 random bits, int64, for each element of ``key`` and ``index``, broadcast against each other."""
    return mix(mix(key ^ _salt(stream, step)) + (index + 1) * _GOLDEN)


def gumbel(key: Tensor, stream: str, step: int, *shape: int) -> Tensor:
    """[B, *shape] standard Gumbel noise."""
    return -torch.log(-torch.log(uniform(key, stream, step, *shape)))


def gumbel_at(key: Tensor, stream: str, step: int, index: Tensor) -> Tensor:
    """[B, N] standard Gumbel noise at the indices [N] or [B, N], see ``uniform_at``."""
    return -torch.log(-torch.log(uniform_at(key, stream, step, index)))


def logistic(key: Tensor, stream: str, step: int, *shape: int) -> Tensor:
    """[B, *shape] standard logistic noise."""
    return torch.logit(uniform(key, stream, step, *shape))
