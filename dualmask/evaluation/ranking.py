"""How well a score tells positives from negatives: area under the ROC curve, its interval over texts, and the curve."""

# N items, R resamples, U texts

from __future__ import annotations

from typing import Any

import numpy as np

from dualmask.evaluation.statistics import RESAMPLES, Row

ITEMS_AT_ONCE = 2**22  # items × resamples that exist at the same time


def auc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """[R] chance that a positive item scores higher than a negative one, ties counting half.

    score [N]; positive [N] bool; weight [R, N]: how often each item counts (None: once, R = 1).
    """
    weight = np.ones((1, len(score))) if weight is None else weight
    order = np.argsort(score, kind="stable")
    positive, weight = positive[order], weight[:, order]
    first = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # where a run of equal scores begins
    ups = np.add.reduceat(weight * positive, first, axis=1)
    downs = np.add.reduceat(weight * ~positive, first, axis=1)
    below = downs.cumsum(1) - downs / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((ups * below).sum(1) / (ups.sum(1) * downs.sum(1)))


def auc_row(metric: str, score: np.ndarray, positive: np.ndarray, owner: np.ndarray, **dimensions: Any) -> Row:
    """A row of a result file. owner [N]: number of the text that an item belongs to; texts are resampled as wholes."""
    number = int(owner.max()) + 1
    at_once = max(1, ITEMS_AT_ONCE // len(score))
    random = np.random.default_rng(0)
    draws = random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(np.float32)
    values = [auc(score, positive, draws[at : at + at_once, owner]) for at in range(0, RESAMPLES, at_once)]
    low, high = np.nanquantile(np.concatenate(values), [0.025, 0.975])
    value = float(auc(score, positive)[0])
    return {"metric": metric, "value": value, "lo": float(low), "hi": float(high), "n": number, **dimensions}


def roc(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share of negatives, share of positives) above each threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)  # equal scores pass together
    hits, misses = positive[order].cumsum()[last], (~positive[order]).cumsum()[last]
    return np.r_[0, misses / max(misses[-1], 1)], np.r_[0, hits / max(hits[-1], 1)]
