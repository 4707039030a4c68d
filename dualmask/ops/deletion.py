"""Choosing which tokens to delete: an exact budget per sequence, at random (tokens or spans) or by expected gain.

The gain model is pairwise: token i is restored with probability sigmoid(unary_i + Σ_o pairwise_{i,o}·[i+o is deleted]),
where o ranges over the offsets within REACH. Deleting a token thus changes the probability of its deleted neighbours.
"""

# B batch, T tokens, R = REACH

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core import noise

REACH = 2  # greatest distance of two tokens whose deletions interact
OFFSETS = tuple(o for o in range(-REACH, REACH + 1) if o)
PASSES = 8  # of ``choose``


def budget(deletable: Tensor, keep_rate: Tensor) -> Tensor:
    """[B] number of tokens to delete: round((1 − keep_rate) · deletable tokens)."""
    return torch.round((1 - keep_rate) * deletable.sum(1)).long()


def best_first(score: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """[B, T] bool: the ``number`` [B] deletable tokens with the highest ``score`` [B, T]; ties go to the leftmost."""
    score = score.masked_fill(~deletable, float("-inf"))
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(1)
    return (rank < number[:, None]) & deletable


def random_scores(key: Tensor, step: int, width: int, span_share: float, mean_span: float) -> Tensor:
    """[B, T] scores for random deletion: per sequence either one draw per token, or one draw per span.

    The tokens of a span have equal scores, so that deleting the highest scores removes whole spans of geometric length
    (mean ``mean_span``) until the budget is met exactly (T5's span corruption with a fixed number of tokens).
    """
    starts = noise.uniform(key, "span start", step, width) < 1.0 / mean_span
    spans = noise.uniform(key, "span row", step) < span_share
    segment = torch.where(spans[:, None], starts.long().cumsum(1), torch.arange(width, device=key.device))
    return noise.uniform(key, "random deletion", step, width + 1).gather(1, segment)


def keep_rates(key: Tensor, step: int, low: float, high: float) -> Tensor:
    """[B] the requested share of kept tokens of each sequence, uniform in [low, high]."""
    return low + (high - low) * noise.uniform(key, "keep rate", step)


def shift(x: Tensor, offset: int) -> Tensor:
    """[B, T] with x[i + offset] at position i, zero beyond the ends."""
    width = x.shape[1]
    return torch.nn.functional.pad(x, (REACH, REACH))[:, REACH + offset : REACH + offset + width]


def given_neighbours(unary: Tensor, pairwise: Tensor, deleted: Tensor) -> Tensor:
    """[B, T] logit of the probability that each token is restored, given which others are deleted.

    unary [B, T], pairwise [B, T, 2R] in the order of OFFSETS, deleted [B, T] bool.
    """
    is_deleted = deleted.to(unary)
    return unary + sum(pairwise[..., k] * shift(is_deleted, offset) for k, offset in enumerate(OFFSETS))


def gains(unary: Tensor, pairwise: Tensor, chosen: Tensor) -> Tensor:
    """[B, T] change in the expected number of restored tokens if one more token is deleted."""
    logit = given_neighbours(unary, pairwise, chosen)
    prob = torch.sigmoid(logit)
    gain = prob
    for k, offset in enumerate(OFFSETS):
        # what token i + offset, if chosen, loses when token i is deleted: i is its neighbour at −offset
        opposite = len(OFFSETS) - 1 - k
        change = (torch.sigmoid(logit + pairwise[..., opposite]) - prob) * chosen
        gain = gain + shift(change, offset)
    return gain


def choose(unary: Tensor, pairwise: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """[B, T] bool: ``number`` [B] tokens, chosen greedily in PASSES passes for the expected number of restored tokens.

    In each pass, tokens whose gain is the highest within REACH are taken first, so that the gains of their neighbours
    are updated before those are chosen. No gradient.
    """
    chosen = torch.zeros_like(deletable)
    window = 2 * REACH + 1
    for pass_number in range(1, PASSES + 1):
        gain = gains(unary, pairwise, chosen).masked_fill(~deletable | chosen, -9.0)
        highest = torch.nn.functional.max_pool1d(gain[:, None], window, stride=1, padding=REACH)[:, 0]
        score = torch.where(gain >= highest, gain, gain - 4.0)
        open_budget = (number * pass_number + PASSES - 1) // PASSES - chosen.sum(1)
        chosen = chosen | best_first(score, deletable & ~chosen, open_budget)
    return chosen
