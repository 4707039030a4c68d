"""Which source a sequence comes from: a pure function of (weights, seed, position).

Every block of positions holds each source as often as its weight says, in an order that a hash draws, so that any long
part of the run has the mixture, whatever the number of ranks and wherever the run was resumed.
"""

# S sources

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import mix, permutation, unit

BLOCK = 10_000  # positions: weights count to a hundredth of a percent

_SLOTS, _REDRAW = 10, 11  # kinds of draws


class Mixture:
    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """Raises ValueError for a weight that is too small beside the others."""
        self._seed, shares = seed, np.asarray(weights, np.float64) / np.sum(weights)
        self._shares = shares
        self._counts = largest_remainder(shares, BLOCK)
        if not self._counts.all():
            number = int(np.argmin(self._counts))
            raise ValueError(
                f"the weight {weights[number]} of source {number} is less than {1 / BLOCK:.2%} of all: raise it"
            )
        self._block = lru_cache(maxsize=2)(self._make_block)

    def most(self, count: int) -> NDArray[np.int64]:
        """About how many of ``count`` positions each source has, [S]."""
        return np.ceil(self._shares * count).astype(np.int64)

    def draw(self, start: int, stop: int, left: Sequence[int]) -> NDArray[np.int64] | None:
        """The source of each position from ``start`` to ``stop`` - 1. ``left``: how many sequences each source still
        has; the positions of one that has none go to the others by weight. None where they all have too few."""
        if sum(left) < stop - start:
            return None
        chosen = self._planned(start, stop)
        for attempt in range(len(left)):  # each ends another source, so that the last one is right
            counts = np.bincount(chosen, minlength=len(left))
            spent = counts >= np.asarray(left)
            for source in np.flatnonzero(counts > np.asarray(left)).tolist():
                surplus = np.flatnonzero(chosen == source)[left[source] :]
                chosen[surplus] = self._other(start + surplus, ~spent, attempt)
        return chosen

    def _planned(self, start: int, stop: int) -> NDArray[np.int64]:
        if len(self._counts) == 1:
            return np.zeros(stop - start, np.int64)
        blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        planned = np.concatenate([self._block(number) for number in blocks])
        return planned[start - blocks[0] * BLOCK :][: stop - start]

    def _make_block(self, number: int) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self._counts)), self._counts)[permutation(BLOCK, self._seed, number, _SLOTS)]

    def _other(self, positions: NDArray[np.int64], allowed: NDArray[np.bool_], attempt: int) -> NDArray[np.int64]:
        sources = np.flatnonzero(allowed)
        ends = np.cumsum(self._shares[sources])
        draws = unit(mix(self._seed, positions, _REDRAW, attempt)) * ends[-1]
        return sources[np.minimum(np.searchsorted(ends, draws, side="right"), len(sources) - 1)]


def largest_remainder(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers whose sum is ``total``, as near as can be to ``shares`` of it [S]."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts
