"""Tables and plot of the suites `reconstruction`, `gaps` and `quickstart`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from dualmask.evaluation import plots
from dualmask.evaluation.report import find, select
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import BOXED, interval, make_table, value
from dualmask.families.edit.evaluate.reconstruction import GAPS

METHODS = ("random", "frequent", "greedy", "picker")
SHORT = {"true": "true", "predicted": "pred."}  # gaps, in a table that fits a narrow terminal


def restoration_table(rows: Sequence[Row], rates: Sequence[float]) -> Table:
    """Share of deleted tokens restored, by method, kind of gaps and share deleted; gap F1 on the right."""
    headings = ["deleter\n", *(f"{SHORT[kind]}\n{rate:.0%}" for kind in SHORT for rate in rates)]
    headings += [f"gap F1\n{rate:.0%}" for rate in rates]
    table = make_table(
        "Share of deleted tokens restored exactly, by share deleted (same filler, same number)", headings, **BOXED
    )
    for method in METHODS:
        cells = [
            find(rows, metric="restored", method=method, gaps=kind, deleted=rate) for kind in SHORT for rate in rates
        ]
        cells += [find(rows, metric="gap_f1", method=method, deleted=rate) for rate in rates]
        table.add_row(method, *(f"{row['value']:.2f}" for row in cells), style="bold" if method == "picker" else None)
    return table


def rows_table(rows: Sequence[Row]) -> Table:
    """Every row as it stands in the result file."""
    headings = ("metric", "deleted", "gaps", "method", "value", "95 % interval", "sequences")
    table = make_table(None, headings, left={*range(len(headings))} - {headings.index("value")}, wrap=True, **BOXED)
    for row in sorted(rows, key=lambda row: (row["metric"], row["deleted"], row.get("gaps", ""), row["method"])):
        gaps, share = row.get("gaps", ""), f"{row['deleted']:.0%}"
        table.add_row(row["metric"], share, gaps, row["method"], value(row), interval(row), str(row["n"]))
    return table


def plot(rows: Sequence[Row], path: Path) -> None:
    """Restored share over share deleted, a panel for each kind of gaps, 95 % intervals as bands."""
    kinds = [kind for kind in GAPS if select(rows, gaps=kind)]
    with plots.panels(path, len(kinds), size=(4.2, 3.6), sharey=True) as panels:
        for panel, kind in zip(panels, kinds, strict=True):
            for method in METHODS:
                restored = select(rows, metric="restored", gaps=kind, method=method)
                line = sorted(restored, key=lambda row: row["deleted"])
                plots.line_with_interval(panel, [row["deleted"] for row in line], line, label=method)
            panel.set(title=f"{kind} gaps", xlabel="share of tokens deleted", ylim=(0, 1))
        panels[0].set_ylabel("share of deleted tokens restored")
        panels[0].legend()
