"""Choosing tokens for [MASK] slots, and which of them stay. Randomness comes in as uniform numbers."""

# M slots, V vocabulary, N sequences, W places

from __future__ import annotations

import math

import torch
from torch import Tensor


def choose(
    logits: Tensor, allowed: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor
) -> tuple[Tensor, Tensor]:
    """Token [M] and confidence [M] for each slot: the model's probability of the chosen token among the allowed ones.

    logits [M, V], allowed [M, V] bool (at least one a slot), uniform [M] in (0, 1), temperature [M] (0: the most likely
    token), top_p [M] in (0, 1]: only the smallest set of most likely tokens that holds this probability is drawn from.
    """
    logits = logits.float().masked_fill(~allowed, float("-inf"))
    prob = logits.softmax(-1)
    token = logits.argmax(-1)
    if (temperature > 0).any():
        token = torch.where(temperature > 0, _draw(logits, uniform, temperature, top_p), token)
    return token, prob.gather(-1, token[:, None]).squeeze(-1)


def _draw(logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """[M] from the nucleus of the tempered distribution, by inverting its cumulative probability."""
    prob = (logits / temperature.clamp_min(1e-6)[:, None]).softmax(-1)
    limited = top_p < 1
    if limited.any():
        prob[limited] = _nucleus(prob[limited], top_p[limited])
    reached = prob.cumsum(-1)
    place = (reached < uniform[:, None] * reached[:, -1:]).sum(-1)
    return place.clamp_max(logits.shape[-1] - 1)


def _nucleus(prob: Tensor, top_p: Tensor) -> Tensor:
    """[M, V] ``prob`` with 0 outside the smallest set of most likely tokens that holds ``top_p`` of it."""
    ordered, token = prob.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(prob).scatter(-1, token, ordered * (before < top_p[:, None]))


def still_open(slots: Tensor, step: int, steps: Tensor) -> Tensor:
    """[N] how many of ``slots`` [N] are masks again after fill step ``step`` (0-based) of ``steps`` [N].

    The cosine schedule of MaskGIT (Chang et al. 2022), with at least one slot decided a step and none left at the end.
    """
    progress = ((step + 1) / steps).clamp_max(1.0)
    remaining = torch.floor(slots * torch.cos(progress * math.pi / 2) + 1e-4).long()
    return torch.minimum(remaining, (slots - step - 1).clamp_min(0)) * (progress < 1)


def least_sure(confidence: Tensor, among: Tensor, number: Tensor) -> Tensor:
    """[N, W] bool: the ``number`` [N] places among ``among`` with the lowest confidence; rightmost first."""
    ranked = confidence.masked_fill(~among, float("inf")).flip(1).argsort(dim=1, stable=True)
    rank = ranked.argsort(1).flip(1)
    return (rank < number[:, None]) & among
