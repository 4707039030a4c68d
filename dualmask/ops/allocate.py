"""How many masks each gap gets at inference (method.md §1): the most likely counts, a draw, or an exact total."""

# B batch, G gaps, N = K+1 possible counts of a gap

from __future__ import annotations

import torch
from torch import Tensor

BISECTIONS = 40


def count_scores(gap_logits: Tensor, temperature: Tensor, gumbel: Tensor) -> Tensor:
    """[B, G, N] scores whose argmax over N is the most likely count (temperature 0) or an exact draw from P^(1/τ).

    Perturb and maximise: log P / τ + Gumbel noise. So one maximiser serves the best counts and random ones, with and
    without a total. gap_logits [B, G, N], temperature [B] ≥ 0, gumbel [B, G, N] (unused where temperature is 0).
    """
    log_prob = gap_logits.float().log_softmax(-1)
    tau = temperature[:, None, None]
    return torch.where(tau > 0, log_prob / tau.clamp_min(1e-6) + gumbel, log_prob)


def most_likely(score: Tensor, allowed: Tensor) -> Tensor:
    """[B, G] the best count of each gap; 0 where ``allowed`` [B, G] is False."""
    return score.argmax(-1) * allowed


def at_most(score: Tensor, allowed: Tensor, bound: Tensor) -> Tensor:
    """[B, G] the best counts whose sum does not exceed ``bound`` [B]."""
    free = most_likely(score, allowed).sum(1)
    return exact_total(score, allowed, torch.minimum(free, bound))


def exact_total(score: Tensor, allowed: Tensor, total: Tensor) -> Tensor:
    """[B, G] argmax of Σ_g score[g, c_g] with Σ_g c_g = ``total`` [B] over the allowed gaps.

    ``total`` is clamped to 0 … K·(allowed gaps). A multiplier per sample, found by bisection, prices each mask; that is
    the exact optimum where the scores of every gap are concave in the count. Gaps that change at the same price are
    opened from the left; where a gap jumps over the last few masks, the best single changes make the sum exact.
    """
    number = torch.arange(score.shape[-1], device=score.device)
    total = torch.minimum(total.clamp_min(0), number[-1] * allowed.sum(1))
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
    """Counts [B, G] just below (Σ ≤ total) and just above (Σ ≥ total) the right price, and the lower price [B, 1]."""
    number = torch.arange(score.shape[-1], device=score.device)

    def counts(price: Tensor) -> Tensor:
        return most_likely(score + price[:, :, None] * number, allowed)

    # a price beyond the spread of the scores buys nothing, or everything
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
    """Moves single gaps, the cheapest first, until the sums are exact. At most K passes: the rest is under one jump."""
    number = torch.arange(score.shape[-1], device=score.device)
    while (rest := total - count.sum(1)).any():
        step = number - count[..., None]
        wanted = rest.sign()[:, None, None]
        legal = (step * wanted > 0) & (step.abs() <= rest.abs()[:, None, None]) & allowed[..., None]
        gain = score - score.gather(-1, count[..., None])
        best = gain.masked_fill(~legal, float("-inf")).flatten(1).argmax(1, keepdim=True)
        move = step.flatten(1).gather(1, best) * (rest != 0)[:, None]
        count = count.scatter_add(1, best // len(number), move)
    return count
