"""The number of masks in each gap at inference: the most likely counts, a random draw, or an exact total."""

# B batch, G gaps, N = K+1 possible counts of a gap

from __future__ import annotations

import torch
from torch import Tensor

BISECTIONS = 40


def count_scores(gap_logits: Tensor, temperature: Tensor, gumbel: Tensor) -> Tensor:
    """[B, G, N] scores whose argmax over N is the most likely count (temperature 0) or an exact draw from P^(1/τ).

    The Gumbel-max trick, log P / τ + Gumbel noise: one maximiser serves the best counts and random ones, with and
    without a total. gap_logits [B, G, N], temperature τ [B] ≥ 0, gumbel [B, G, N] (unused where τ is 0).
    """
    log_prob = gap_logits.float().log_softmax(-1)
    tau = temperature[:, None, None]
    return torch.where(tau > 0, log_prob / tau.clamp_min(1e-6) + gumbel, log_prob)


def most_likely(score: Tensor, allowed: Tensor) -> Tensor:
    """[B, G] the count with the highest score in each gap; 0 where ``allowed`` [B, G] is False."""
    return score.argmax(-1) * allowed


def at_most(score: Tensor, allowed: Tensor, bound: Tensor) -> Tensor:
    """[B, G] the counts with the highest total score whose sum does not exceed ``bound`` [B]."""
    free = most_likely(score, allowed).sum(1)
    return exact_total(score, allowed, torch.minimum(free, bound))


def exact_total(score: Tensor, allowed: Tensor, total: Tensor) -> Tensor:
    """[B, G] argmax of Σ_g score[g, c_g] with Σ_g c_g = ``total`` [B] over the allowed gaps.

    ``total`` is clamped to 0 … K·(allowed gaps). A Lagrange multiplier per sample, the price of a mask, is found by
    bisection; the result is optimal if the scores of every gap are concave in the count. Gaps whose counts change at
    the same price are filled from the left; if a gap's count jumps past the total, the best single changes make the
    sum exact.
    """
    number = torch.arange(score.shape[-1], device=score.device)
    total = torch.minimum(total.clamp_min(0), number[-1] * allowed.sum(1))
    free = most_likely(score, allowed)
    if torch.equal(free.sum(1), total):  # as nearly always where the inserter decides: a mask costs nothing
        return free
    below, above, price = _bracket(score, allowed, total)
    priced = score + price[:, :, None] * number
    jump = (above - below).clamp_min(0)
    rest = total - below.sum(1)
    opened = jump.cumsum(1) <= rest[:, None]
    under = below + jump * opened
    next_jump = (~opened & (jump > 0)).cumsum(1) == 1
    over = under + jump * next_jump
    under, over = _settle(priced, allowed, under, total), _settle(priced, allowed, over, total)
    better = _value(priced, over) > _value(priced, under)
    return torch.where(better[:, None], over, under)


def _bracket(score: Tensor, allowed: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts [B, G] just below (Σ ≤ total) and just above (Σ ≥ total) the optimal price, and the lower price [B, 1]."""
    number = torch.arange(score.shape[-1], device=score.device)

    def counts(price: Tensor) -> Tensor:
        return most_likely(score + price[:, :, None] * number, allowed)

    # a price beyond the spread of the scores sets all counts to 0 or to K
    spread = (score.amax(-1) - score.amin(-1)).masked_fill(~allowed, 0.0)
    high = spread.amax(1, keepdim=True) + 1.0 if spread.shape[1] else spread.new_ones(len(spread), 1)
    low = -high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = counts(middle).sum(1, keepdim=True) <= total[:, None]
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return counts(low), counts(high), low


def _value(score: Tensor, count: Tensor) -> Tensor:
    return score.gather(-1, count[..., None]).squeeze(-1).sum(1)


def _settle(score: Tensor, allowed: Tensor, count: Tensor, total: Tensor) -> Tensor:
    """Changes single gaps, the cheapest first, until the sums are exact; this takes at most K passes."""
    number = torch.arange(score.shape[-1], device=score.device)
    while (rest := total - count.sum(1)).any():
        step = number - count[..., None]
        direction = rest.sign()[:, None, None]
        legal = (step * direction > 0) & (step.abs() <= rest.abs()[:, None, None]) & allowed[..., None]
        gain = score - score.gather(-1, count[..., None])
        best = gain.masked_fill(~legal, float("-inf")).flatten(1).argmax(1, keepdim=True)
        move = step.flatten(1).gather(1, best) * (rest != 0)[:, None]
        count = count.scatter_add(1, best // len(number), move)
    return count
