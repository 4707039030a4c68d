"""The suites `reconstruction`, `gaps` and `quickstart`: the picker against who else could choose what to delete."""

from __future__ import annotations

from collections.abc import Sequence

from dualmask.core.batch import Batch
from dualmask.evaluation.report import find
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import reconstruction
from dualmask.families.edit.model import DualMask
from dualmask.inference.loading import Loaded

METRICS = {  # by suite
    "reconstruction": ("restored", "exact", "picker_ahead"),
    "gaps": ("gap_f1", "length_error"),
    "quickstart": ("restored", "exact", "picker_ahead", "gap_f1", "length_error"),
}


def evaluate(
    suite: str,
    loaded: Loaded[DualMask],
    data: Sequence[Batch],
    rates: Sequence[float],
    filler: Loaded[DualMask] | None = None,
) -> list[Row]:
    """The rows of a suite of METRICS. filler: another model, whose filler restores what was deleted."""
    counts = reconstruction.token_counts(data, loaded.tokenizer.vocab_size)
    methods = reconstruction.deleters(loaded.model, counts)
    rows = reconstruction.evaluate(loaded.model, data, methods, rates, filler.model if filler else None)
    return [row for row in with_strongest_greedy(rows) if row["metric"] in METRICS[suite]]


def with_strongest_greedy(rows: list[Row]) -> list[Row]:
    """Adds rows "greedy": the stronger of the two greedy variants, figure by figure. That is the baseline to beat."""
    best = []
    for row in rows:
        if row["method"] != "greedy_plain":
            continue
        where = {name: row[name] for name in ("metric", "deleted", "gaps") if name in row}
        other = find(rows, method="greedy_spaced", **where)
        sign = -1 if row["metric"] in ("length_error", "picker_ahead") else 1
        best.append({**max(row, other, key=lambda r: sign * r["value"]), "method": "greedy"})
    return rows + best
