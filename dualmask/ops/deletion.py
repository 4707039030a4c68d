"""Choosing which tokens to delete: an exact budget per sequence, by score or at random (single tokens or spans)."""

# B batch, T tokens

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.ops import noise


def budget(deletable: Tensor, keep_rate: Tensor) -> Tensor:
    """[B] number of tokens to delete: round((1 − keep_rate) · deletable tokens)."""
    return torch.round((1 - keep_rate) * deletable.sum(1)).long()


def best_first(score: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """[B, T] bool: the ``number`` [B] deletable tokens with the highest ``score`` [B, T]; equal scores: leftmost first."""
    score = score.masked_fill(~deletable, float("-inf"))
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(1)
    return (rank < number[:, None]) & deletable


def random_scores(key: Tensor, step: int, width: int, span_share: float, mean_span: float) -> Tensor:
    """[B, T] scores for random deletion: per sequence either one draw a token, or one draw a span.

    Tokens of a span share their score, so that deleting the best first removes whole spans of geometric length
    (mean ``mean_span``) until the budget is met exactly (T5's span corruption with a fixed number of tokens).
    """
    starts = noise.uniform(key, "span start", step, width) < 1.0 / mean_span
    spans = noise.uniform(key, "span row", step) < span_share
    segment = torch.where(spans[:, None], starts.long().cumsum(1), torch.arange(width, device=key.device))
    return noise.uniform(key, "random deletion", step, width + 1).gather(1, segment)


def keep_rates(key: Tensor, step: int, low: float, high: float) -> Tensor:
    """[B] the share of tokens that each sequence is asked to keep, uniform in [low, high]."""
    return low + (high - low) * noise.uniform(key, "keep rate", step)


def substitute(tokens: Tensor, deletable: Tensor, key: Tensor, step: int, share: float, rate: float) -> Tensor:
    """[B, T] tokens, of which ``share`` of the sequences have ``rate`` of their deletable tokens replaced by tokens
    from other places of the same sequence: wrong words that are not rare ones."""
    width = tokens.shape[1]
    row = noise.uniform(key, "corrupt row", step) < share
    hit = (noise.uniform(key, "corrupt token", step, width) < rate) & deletable & row[:, None]
    inner = deletable.sum(1, keepdim=True).clamp_min(1)
    other = 1 + (noise.uniform(key, "corrupt source", step, width) * inner).long()
    return torch.where(hit, tokens.gather(1, other.clamp_max(width - 1)), tokens)
