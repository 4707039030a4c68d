"""Rows of a result file: a figure, its bootstrap interval over sequences, and what it was measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 1000
Statistic = Callable[[np.ndarray], np.ndarray]  # sums [..., c] → figures [...]
Row = dict[str, Any]  # "metric", "value", "lo", "hi", "n", and the dimensions such as "method"


def interval(statistic: Statistic, columns: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap. ``columns`` [n, c]: additive per-sequence counts, over whose sums the statistic is
    taken."""
    draw = np.random.default_rng(0).multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=RESAMPLES)
    low, high = np.nanquantile(statistic(draw @ columns), [0.025, 0.975])
    return float(low), float(high)


def row(metric: str, statistic: Statistic, columns: np.ndarray, **dimensions: Any) -> Row:
    """One line of a result file; n is the number of sequences."""
    columns = np.asarray(columns, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval(statistic, columns)
        value = float(statistic(columns.sum(0)))
    return {"metric": metric, "value": value, "lo": low, "hi": high, "n": len(columns), **dimensions}


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def exp_ratio(sums: np.ndarray) -> np.ndarray:
    """Perplexity from (negative log-likelihood in nats, tokens); how often likelier a token is, from differences."""
    return np.asarray(np.exp(ratio(sums)))


def f1(sums: np.ndarray) -> np.ndarray:
    """From (true positives, predicted, actual)."""
    return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])
