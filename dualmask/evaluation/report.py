"""Result files, their plot and their table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from dualmask.evaluation.statistics import Row, machine

METHODS = ("random", "frequent", "greedy", "picker")
KINDS = ("true", "predicted", "shuffled")
SHORT = {"true": "true", "predicted": "pred."}  # gaps, in a table that fits a narrow terminal


def write(path: Path, suite: str, rows: Sequence[Row], **about: Any) -> dict[str, Any]:
    """{"suite", "machine", …, "rows"}: written beside and renamed, so that no half file is left."""
    result = {"suite": suite, "machine": machine(), **about, "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    half.replace(path)
    return result


def find(rows: Sequence[Row], **wanted: Any) -> Row:
    """The one row with these dimensions. Raises KeyError where there is none."""
    for row in rows:
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    raise KeyError(f"no row with {wanted}")


def with_strongest_greedy(rows: list[Row]) -> list[Row]:
    """Adds rows "greedy": the stronger of the two greedy variants, figure by figure. That is the baseline to beat."""
    best = []
    for row in rows:
        if row["method"] != "greedy_plain":
            continue
        where = {name: row[name] for name in ("metric", "deleted", "gaps") if name in row}
        other = find(rows, method="greedy_spaced", **where)
        sign = -1 if row["metric"] == "length_error" else 1
        best.append({**max(row, other, key=lambda r: sign * r["value"]), "method": "greedy"})
    return rows + best


def restoration_table(rows: Sequence[Row], rates: Sequence[float]) -> Table:
    """Share of deleted tokens restored, by method, kind of gaps and share deleted; gap F1 on the right."""
    table = Table(title="Share of deleted tokens restored exactly, by share deleted (same filler, same number)")
    table.add_column("deleter\n")
    for kind in ("true", "predicted"):
        for rate in rates:
            table.add_column(f"{SHORT[kind]}\n{rate:.0%}", justify="right", no_wrap=True)
    for rate in rates:
        table.add_column(f"gap F1\n{rate:.0%}", justify="right", no_wrap=True)
    for method in METHODS:
        cells = [
            _cell(find(rows, metric="restored", method=method, gaps=kind, deleted=rate))
            for kind in ("true", "predicted")
            for rate in rates
        ]
        cells += [_cell(find(rows, metric="gap_f1", method=method, deleted=rate)) for rate in rates]
        table.add_row(method, *cells, style="bold" if method == "picker" else None)
    return table


def rows_table(rows: Sequence[Row]) -> Table:
    """Every row as it stands in the result file."""
    table = Table()
    for name in ("metric", "deleted", "gaps", "method", "value", "95 % interval", "sequences"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in sorted(rows, key=lambda row: (row["metric"], row["deleted"], row.get("gaps", ""), row["method"])):
        table.add_row(
            row["metric"],
            f"{row['deleted']:.0%}",
            row.get("gaps", ""),
            row["method"],
            f"{row['value']:.3f}",
            f"{row['lo']:.3f} … {row['hi']:.3f}",
            str(row["n"]),
        )
    return table


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f}"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Restored share over share deleted, a panel for each kind of gaps, 95 % intervals as bands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [kind for kind in KINDS if any(row.get("gaps") == kind for row in rows)]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(4.2 * len(kinds), 3.6), sharey=True, squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for method in METHODS:
            line = sorted(
                (
                    row
                    for row in rows
                    if row["metric"] == "restored" and row["gaps"] == kind and row["method"] == method
                ),
                key=lambda row: row["deleted"],
            )
            share = [row["deleted"] for row in line]
            panel.plot(share, [row["value"] for row in line], marker="o", label=method)
            panel.fill_between(share, [row["lo"] for row in line], [row["hi"] for row in line], alpha=0.2)
        panel.set(title=f"{kind} gaps", xlabel="share of tokens deleted", ylim=(0, 1))
    panels[0][0].set_ylabel("share of deleted tokens restored")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
