"""What was changed in a text, as edits that can be compared: a span of the source and what stands there instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

Ids = Sequence[int]


class Edit(NamedTuple):
    """Source tokens [start, end) became ``written``; start = end: something was inserted there."""

    start: int
    end: int
    written: tuple[int, ...]


def edits(source: Ids, result: Ids) -> set[Edit]:
    """The edits of one least-cost alignment (Levenshtein).

    Of two equal neighbours either may have been deleted or inserted: such edits are moved as far left as they go, so
    that one and the same correction always has the same name.
    """
    all_edits: set[Edit] = set()
    border = 0  # no further: behind the edit in front of this one, and a token between them
    for code in Levenshtein.opcodes(source, result):
        if code.tag != "equal":
            edit = Edit(code.src_start, code.src_end, tuple(result[code.dest_start : code.dest_end]))
            all_edits.add(_leftmost(edit, source, border))
            border = code.src_end + 1
    return all_edits


def _leftmost(edit: Edit, source: Ids, border: int) -> Edit:
    start, end, written = edit
    if end > start and written:
        return edit
    moved = list(written or source[start:end])
    while start > border and source[start - 1] == moved[-1]:
        moved = [moved[-1], *moved[:-1]]
        start, end = start - 1, end - 1
    return Edit(start, end, tuple(moved) if written else ())


def agreement(source: Ids, result: Ids, target: Ids) -> tuple[int, int, int, int]:
    """Numbers of edits: made and needed, made, needed, and made where one is needed, whatever was written there."""
    made, needed = edits(source, result), edits(source, target)
    spans = {edit[:2] for edit in made} & {edit[:2] for edit in needed}
    return len(made & needed), len(made), len(needed), len(spans)


def untouched(source: Ids, result: Ids) -> int:
    """Tokens of the source less the edit distance, at least 0: an insertion is counted as if it had cost a token."""
    return max(len(source) - Levenshtein.distance(source, result), 0)


def precision(sums: np.ndarray) -> np.ndarray:
    """From (true positives, predicted, actual), as are the two below. 1 where nothing was predicted."""
    return np.where(sums[..., 1] > 0, sums[..., 0] / np.maximum(sums[..., 1], 1), 1.0)


def recall(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 2]


def f05(sums: np.ndarray) -> np.ndarray:
    """F with β = 0.5: precision weighs twice as much as recall (as is usual for corrections, Ng et al. 2014)."""
    return 1.25 * sums[..., 0] / (sums[..., 1] + 0.25 * sums[..., 2])
