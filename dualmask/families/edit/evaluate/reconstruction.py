"""Which deleted tokens come back? Same filler, same number of deletions, different deleters and gaps.

gaps "true": the inserter is given the answer. "predicted": each gap gets the inserter's most likely count; a token
counts as restored only if its gap's count is right (so text shifted by one misplaced [MASK] is never compared slot by
slot). "shuffled": the true counts in the wrong gaps; how much of the restoration needs the positions.
"""

# B batch, T tokens, G gaps = T-1, V vocabulary

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.evaluation import statistics
from dualmask.families.edit.evaluate import baselines
from dualmask.families.edit.evaluate.baselines import Deleter
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.round import RoundResult, play_round
from dualmask.ops import gaps

RATES = (0.2, 0.3, 0.5)
GAPS = ("true", "predicted", "shuffled")
PICKER = "picker"

Methods = Callable[[Batch], dict[str, Deleter]]  # by name, of one batch


@dataclass(frozen=True)
class Restored:
    """What one deleter's skeletons became, per sequence."""

    right: dict[str, Tensor]  # by kind of gaps: [B] deleted tokens restored
    number: Tensor  # [B] deleted tokens
    gap_hits: Tensor  # [B] non-empty gaps whose predicted count is right
    gaps_predicted: Tensor  # [B] gaps predicted non-empty
    gaps_actual: Tensor  # [B] gaps that are non-empty
    length_error: Tensor  # [B] |predicted − true length|
    length: Tensor  # [B] true length


def deleters(model: DualMask, token_count: Tensor) -> Methods:
    """The picker and its baselines; ``token_count`` [V]: how often each token occurs."""

    def methods(batch: Batch) -> dict[str, Deleter]:
        prob = baselines.filler_scores(model, batch).prob
        return {
            PICKER: partial(baselines.picker, model, batch),
            "random": partial(baselines.random, batch),
            "frequent": partial(baselines.frequent, batch, token_count),
            "greedy_plain": partial(baselines.greedy, batch, prob, spaced=False),
            "greedy_spaced": partial(baselines.greedy, batch, prob, spaced=True),
        }

    return methods


@torch.no_grad()
def restore(model: DualMask, batch: Batch, deleted: Tensor, filler: DualMask | None = None) -> Restored:
    """Fills the skeleton again. ``filler``: another model whose filler is used instead of ``model``'s."""

    def restored(counts: Tensor | None) -> RoundResult:
        return play_round(batch.tokens, batch.length, GivenRules(model, deleted, counts, filler=filler))

    results = {"predicted": restored(None)}
    remainder, predicted = results["predicted"].opened.remainder, results["predicted"].count
    actual = gaps.gap_counts(remainder.keep, deleted)
    gap_present = gaps.gap_present(remainder.skeleton.length, batch.tokens.shape[1])
    results |= {"true": restored(actual), "shuffled": restored(_shuffled(actual, gap_present, batch.key))}
    is_opened, is_missing = predicted > 0, actual > 0
    return Restored(
        right={kind: _restored_tokens(batch, results[kind], actual) for kind in GAPS},
        number=deleted.sum(1),
        gap_hits=((predicted == actual) & is_missing).sum(1),
        gaps_predicted=is_opened.sum(1),
        gaps_actual=is_missing.sum(1),
        length_error=(predicted.sum(1) - actual.sum(1)).abs(),
        length=batch.length,
    )


def _restored_tokens(batch: Batch, result: RoundResult, actual: Tensor) -> Tensor:
    """[B] deleted tokens that stand again at the same position of a gap with the right count."""
    opened = result.opened
    right_count = (result.count == actual).gather(1, opened.masked.gap.clamp(0, actual.shape[1] - 1))
    same = result.tokens == batch.tokens.gather(1, opened.replaced.clamp_min(0))
    return (result.is_mask & right_count & same).sum(1)


def _shuffled(count: Tensor, present: Tensor, key: Tensor) -> Tensor:
    """The counts of each sequence in a random order of its gaps."""
    order = noise.uniform(key, "shuffled gaps", 0, count.shape[1]).masked_fill(~present, 2.0).argsort(dim=1)
    return count.gather(1, order) * present


def token_counts(batches: Sequence[Batch], vocab_size: int) -> Tensor:
    """[V] how often each token stands in the evaluated texts (their own counts favour the baseline)."""
    tokens = torch.cat([batch.tokens[batch.deletable] for batch in batches])
    return torch.bincount(tokens, minlength=vocab_size)


def evaluate(
    model: DualMask,
    batches: Sequence[Batch],
    methods: Methods,
    rates: Iterable[float] = RATES,
    filler: DualMask | None = None,
) -> list[statistics.Row]:
    """Rows `restored`, `exact`, `gap_f1` and `length_error` for every method, share deleted and kind of gaps; and
    `picker_ahead`, by how much the picker's share restored is above that of each other method."""
    shares = list(dict.fromkeys(rates))
    parts: dict[tuple[float, str], list[Restored]] = defaultdict(list)  # by share deleted and method
    with torch.no_grad():
        for batch in batches:
            delete = methods(batch)
            for share, method in product(shares, delete):
                keep_rate = torch.full(batch.length.shape, 1 - share, device=batch.tokens.device)
                parts[share, method].append(restore(model, batch, delete[method](keep_rate), filler))
    rows = [row for (share, method), part in parts.items() for row in _rows(part, method=method, deleted=share)]
    for (share, method), part in parts.items():
        if method != PICKER and (share, PICKER) in parts:
            rows += _ahead_rows(parts[share, PICKER], part, method=method, deleted=share)
    return rows


def _ahead_rows(picker: Sequence[Restored], other: Sequence[Restored], **where: object) -> list[statistics.Row]:
    """Both on the same resampled texts."""

    def difference(sums: np.ndarray) -> np.ndarray:
        return statistics.ratio(sums[..., :2]) - statistics.ratio(sums[..., 2:])

    rows = []
    for kind in GAPS:
        columns = [column for part in (picker, other) for column in (_right(part, kind), _column(part, "number"))]
        rows.append(statistics.row("picker_ahead", difference, np.stack(columns, 1), gaps=kind, **where))
    return rows


def _column(parts: Sequence[Restored], name: str) -> np.ndarray:
    return torch.cat([getattr(part, name) for part in parts]).cpu().numpy()


def _right(parts: Sequence[Restored], kind: str) -> np.ndarray:
    return torch.cat([part.right[kind] for part in parts]).cpu().numpy()


def _rows(parts: Sequence[Restored], **where: object) -> list[statistics.Row]:
    column = partial(_column, parts)
    number = column("number")
    rows = []
    for kind in GAPS:
        right = _right(parts, kind)
        rows.append(statistics.row("restored", statistics.ratio, np.stack([right, number], 1), gaps=kind, **where))
        exact = np.stack([right == number, np.ones_like(number)], 1)
        rows.append(statistics.row("exact", statistics.ratio, exact, gaps=kind, **where))
    hits = np.stack([column("gap_hits"), column("gaps_predicted"), column("gaps_actual")], 1)
    rows.append(statistics.row("gap_f1", statistics.f1, hits, **where))
    errors = np.stack([column("length_error"), column("length")], 1)
    rows.append(statistics.row("length_error", statistics.ratio, errors, **where))
    return rows
