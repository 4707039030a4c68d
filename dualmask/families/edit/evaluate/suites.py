"""The suites of `dualmask eval`: name → rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualmask.core.batch import Batch
from dualmask.evaluation.report import with_strongest_greedy
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import reconstruction
from dualmask.inference.loading import Loaded

Suite = Callable[[Loaded, Sequence[Batch], Sequence[float], Loaded | None], list[Row]]

RECONSTRUCTION_METRICS = ("restored", "exact")
GAP_METRICS = ("gap_f1", "length_error")


def everything(loaded: Loaded, data: Sequence[Batch], rates: Sequence[float], filler: Loaded | None) -> list[Row]:
    """All rows of both suites in one pass."""
    counts = reconstruction.token_counts(data, loaded.tokenizer.vocab_size)
    methods = reconstruction.deleters(loaded.model, counts)
    rows = reconstruction.evaluate(loaded.model, data, methods, rates, filler.model if filler else None)
    return with_strongest_greedy(rows)


def _only(metrics: Sequence[str]) -> Suite:
    def suite(loaded: Loaded, data: Sequence[Batch], rates: Sequence[float], filler: Loaded | None) -> list[Row]:
        return [row for row in everything(loaded, data, rates, filler) if row["metric"] in metrics]

    return suite


SUITES: dict[str, Suite] = {
    "reconstruction": _only(RECONSTRUCTION_METRICS),
    "gaps": _only(GAP_METRICS),
    "quickstart": everything,
}
