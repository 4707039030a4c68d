"""Gradient estimators for the keep-or-delete decision: forward in {0, 1}, backward the gradient of a relaxed decision.

The decision is ``hard + (relaxed − stop(relaxed))``. The relaxed functions are public, so that a test can compare the
gradient with their finite differences.
"""

from __future__ import annotations

import torch
from torch import Tensor

ZETA, GAMMA = 1.1, -0.1  # stretch of the hard concrete distribution (Louizos, Welling, Kingma 2018)


def straight_through(hard: Tensor, relaxed: Tensor) -> Tensor:
    """``hard`` forward, the gradient of ``relaxed`` backward (Bengio, Léonard, Courville 2013)."""
    return hard + (relaxed - relaxed.detach())  # in this order the forward is exactly hard


def calibrate(logit: Tensor, where: Tensor, mean: Tensor, steps: int = 30) -> Tensor:
    """[B, 1] offset b such that sigmoid(b + logit) has the ``mean`` [B] over ``where``; bisection, no gradient."""
    logit = logit.detach().float()
    low = logit.new_full((len(logit), 1), -60.0)
    high = -low
    total = where.sum(1, keepdim=True).clamp_min(1)
    for _ in range(steps):
        middle = (low + high) / 2
        above = (torch.sigmoid(middle + logit) * where).sum(1, keepdim=True) / total > mean[:, None]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def relaxed_keep(estimator: str, keep_logit: Tensor, logistic_noise: Tensor, temperature: float) -> Tensor:
    """The differentiable relaxation of the hard decision, elementwise in [0, 1].

    straight_through: the keep probability itself.
    gumbel: the binary concrete sigmoid((logit + noise) / temperature) (Maddison, Mnih, Teh 2017; Jang, Gu, Poole 2017).
    reinforce: no gradient (see families/edit/losses/reinforce.py).
    hard_concrete: the same, stretched to (−0.1, 1.1) and clamped, so that confident decisions are exactly 0 or 1.
    """
    if estimator == "reinforce":  # the gradient reaches the decision through its log-probability only
        return torch.sigmoid(keep_logit).detach()
    if estimator == "straight_through":
        return torch.sigmoid(keep_logit)
    concrete = torch.sigmoid((keep_logit + logistic_noise) / temperature)
    if estimator == "gumbel":
        return concrete
    assert estimator == "hard_concrete", estimator
    return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)
