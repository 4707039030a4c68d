"""Which deleted tokens come back? Same filler, same number of deletions, different deleters and gaps.

gaps "true": the inserter is given the answer. "predicted": each gap gets the inserter's most likely count; a token
counts as restored only if its gap's count is right (so text shifted by one misplaced [MASK] is never compared slot by
slot). "shuffled": the true counts in the wrong gaps; how much of the restoration needs the places.
"""

# B batch, T tokens, G gaps = T-1, W width of the masked sequence

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.evaluation import statistics
from dualmask.families.edit.evaluate import baselines
from dualmask.families.edit.evaluate.baselines import Deleter
from dualmask.families.edit.model import DualMask
from dualmask.ops import gaps

RATES = (0.2, 0.3, 0.5)
GAPS = ("true", "predicted", "shuffled")


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


def deleters(model: DualMask, token_count: Tensor) -> dict[str, Deleter]:
    scores = baselines.FillerScores(model)
    return {
        "picker": baselines.picker(model),
        "random": baselines.random,
        "frequent": baselines.frequent(token_count),
        "greedy_plain": baselines.greedy(scores, spaced=False),
        "greedy_spaced": baselines.greedy(scores, spaced=True),
    }


@torch.no_grad()
def restore(model: DualMask, batch: Batch, deleted: Tensor, filler: DualMask | None = None) -> Restored:
    """Fills the skeleton again. ``filler``: another model whose filler is used instead of ``model``'s."""
    keep = batch.present & ~deleted
    skeleton = gaps.drop(batch.tokens, keep)
    actual = gaps.gap_counts(keep, deleted)
    inserter = model.count(skeleton)
    predicted = inserter.gap_logits.argmax(-1) * inserter.gap_present
    chosen = {"true": actual, "predicted": predicted, "shuffled": _shuffled(actual, inserter.gap_present, batch.key)}
    right = {
        kind: _restored_tokens(filler or model, batch, deleted, skeleton, count, actual)
        for kind, count in chosen.items()
    }
    opened, wanted = predicted > 0, actual > 0
    return Restored(
        right=right,
        number=deleted.sum(1),
        gap_hits=((predicted == actual) & wanted).sum(1),
        gaps_predicted=opened.sum(1),
        gaps_actual=wanted.sum(1),
        length_error=(predicted.sum(1) - actual.sum(1)).abs(),
        length=batch.length,
    )


def _restored_tokens(
    model: DualMask, batch: Batch, deleted: Tensor, skeleton: gaps.Skeleton, count: Tensor, actual: Tensor
) -> Tensor:
    """[B] deleted tokens that stand again at the same place of a gap with the right count."""
    width = int((skeleton.length + count.sum(1)).max())
    masked = gaps.insert(skeleton, count, width)
    slot = masked.is_mask.flatten().nonzero().squeeze(1)
    filled = masked.tokens.flatten()
    logits = model.fill(masked.tokens, masked.length, slot)
    filled = filled.scatter(0, slot, logits.argmax(-1)).view_as(masked.tokens)
    before = torch.nn.functional.pad(count.cumsum(1), (1, 0))
    gap = gaps.gap_index(batch.present & ~deleted).clamp_min(0)
    # the r-th deleted token of gap j looks at the r-th mask behind skeleton token j
    place = torch.arange(batch.tokens.shape[1], device=gap.device)
    true_before = torch.nn.functional.pad(actual.cumsum(1), (1, 0))
    rank = place - gap - true_before.gather(1, gap)
    look = (gap + before.gather(1, gap) + rank).clamp(0, width - 1)
    found = filled.gather(1, look) == batch.tokens
    fits = (count == actual).gather(1, gap.clamp_max(count.shape[1] - 1))
    return (found & fits & deleted).sum(1)


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
    methods: Mapping[str, Deleter],
    rates: Iterable[float] = RATES,
    filler: DualMask | None = None,
) -> list[statistics.Row]:
    """Rows `restored`, `exact`, `gap_f1` and `length_error` for every method, share deleted and kind of gaps."""
    rows: list[statistics.Row] = []
    for deleted_share in rates:
        for method, delete in methods.items():
            parts = []
            with torch.no_grad():
                for batch in batches:
                    asked = torch.full(batch.length.shape, 1 - deleted_share, device=batch.tokens.device)
                    parts.append(restore(model, batch, delete(batch, asked), filler))
            rows += _rows(parts, method=method, deleted=deleted_share)
    return rows


def _rows(parts: Sequence[Restored], **where: object) -> list[statistics.Row]:
    def column(name: str) -> np.ndarray:
        return torch.cat([getattr(part, name) for part in parts]).cpu().numpy()

    number = column("number")
    rows = []
    for kind in GAPS:
        right = torch.cat([part.right[kind] for part in parts]).cpu().numpy()
        rows.append(statistics.row("restored", statistics.ratio, np.stack([right, number], 1), gaps=kind, **where))
        exact = np.stack([right == number, np.ones_like(number)], 1)
        rows.append(statistics.row("exact", statistics.ratio, exact, gaps=kind, **where))
    hits = np.stack([column("gap_hits"), column("gaps_predicted"), column("gaps_actual")], 1)
    rows.append(statistics.row("gap_f1", statistics.f1, hits, **where))
    errors = np.stack([column("length_error"), column("length")], 1)
    rows.append(statistics.row("length_error", statistics.ratio, errors, **where))
    return rows
