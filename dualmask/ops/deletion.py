"""Choosing which tokens to delete: an exact budget per sequence, at random (tokens or spans) or by expected gain.

The gain model is pairwise: token i comes back with probability sigmoid(unary_i + Σ_o pairwise_{i,o}·[i+o deleted too]),
with o the neighbours within REACH. Deleting a token therefore also costs its deleted neighbours something.
"""

# B batch, T tokens, R = REACH

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core import noise

REACH = 2  # how far deletions see each other
OFFSETS = tuple(o for o in range(-REACH, REACH + 1) if o)
PASSES = 8  # of ``choose``


def budget(deletable: Tensor, keep_rate: Tensor) -> Tensor:
    """[B] number of tokens to delete: round((1 − keep_rate) · deletable tokens)."""
    return torch.round((1 - keep_rate) * deletable.sum(1)).long()


def best_first(score: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """[B, T] bool: the ``number`` [B] deletable tokens with the highest ``score`` [B, T]; of equals the leftmost."""
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


def shift(x: Tensor, offset: int) -> Tensor:
    """[B, T] with x[i + offset] at place i, zero beyond the ends."""
    width = x.shape[1]
    return torch.nn.functional.pad(x, (REACH, REACH))[:, REACH + offset : REACH + offset + width]


def given_neighbours(unary: Tensor, pairwise: Tensor, deleted: Tensor) -> Tensor:
    """[B, T] logit that each token comes back, given which others are deleted.

    unary [B, T], pairwise [B, T, 2R] in the order of OFFSETS, deleted [B, T] bool.
    """
    gone = deleted.to(unary)
    return unary + sum(pairwise[..., k] * shift(gone, offset) for k, offset in enumerate(OFFSETS))


def gains(unary: Tensor, pairwise: Tensor, chosen: Tensor) -> Tensor:
    """[B, T] change in the expected number of restored tokens if one more token is deleted."""
    logit = given_neighbours(unary, pairwise, chosen)
    prob = torch.sigmoid(logit)
    gain = prob
    for k, offset in enumerate(OFFSETS):
        # what token i + offset, if chosen, loses when token i goes: i is its neighbour at −offset
        opposite = len(OFFSETS) - 1 - k
        change = (torch.sigmoid(logit + pairwise[..., opposite]) - prob) * chosen
        gain = gain + shift(change, offset)
    return gain


def choose(unary: Tensor, pairwise: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """[B, T] bool: ``number`` [B] tokens that together promise the most restored ones, chosen in PASSES passes.

    In each pass tokens that gain more than everyone within REACH come first, so that neighbours wait for each other's
    decision. No gradient.
    """
    chosen = torch.zeros_like(deletable)
    window = 2 * REACH + 1
    for turn in range(1, PASSES + 1):
        gain = gains(unary, pairwise, chosen).masked_fill(~deletable | chosen, -9.0)
        highest = torch.nn.functional.max_pool1d(gain[:, None], window, stride=1, padding=REACH)[:, 0]
        score = torch.where(gain >= highest, gain, gain - 4.0)
        wanted = (number * turn + PASSES - 1) // PASSES - chosen.sum(1)
        chosen = chosen | best_first(score, deletable & ~chosen, wanted)
    return chosen
