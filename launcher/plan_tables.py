"""A plan's rows as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
# metric: title, what makes a line, what makes a column
TABLES = {
    "parameters": ("Parameters", "module", "module"),
    "step_flops": ("Operations of a step (whole global batch, FLOP)", "stage", "part"),
    "rank_bytes": ("A rank at the peak of a step (bytes)", "kind", "stage"),
    "made_bytes": ("A rank's device while a stage's engine is made (bytes)", "kind", "stage"),
    "host_bytes": ("Host memory of a rank, its process left out (bytes)", "phase", "phase"),
    "node_host_bytes": ("Host memory of a node's ranks with their processes (bytes)", "phase", "phase"),
    "gathers": ("Weights that ZeRO-3 gathers in a step (bytes)", "stage", "gathered"),
    "sent": ("What a rank sends in a step (bytes)", "stage", "kind"),
    "step_seconds": ("A step (seconds): least if all that can overlap does, most if nothing does", "part", "stage"),
    "tokens_per_second": ("Tokens a second, padding included", "stage", "bound"),
    "run_days": ("All steps of these stages (days)", "bound", "bound"),
    "run_cost": ("Their price, at the hardware file's", "bound", "bound"),
}  # fmt: skip


def show(rows: Sequence[Row], assumed: Sequence[str], lines: Sequence[str] = ()) -> None:
    """``lines``: in front of the tables."""
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for metric, (title, line, column) in TABLES.items():
        if of_metric := [row for row in rows if row["metric"] == metric]:
            console.print(_table(title, of_metric, line, column))
    console.print("Assumed:", *(f"\n- {line}" for line in assumed), sep="")


def _table(title: str, rows: Sequence[Row], line: str, column: str) -> Table:
    """A line for each value of ``line``, a column for each of ``column``; one column where they are the same."""
    names = ["number"] if line == column else list(dict.fromkeys(row[column] for row in rows))
    table = Table(line, title=title)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for value in dict.fromkeys(row[line] for row in rows):
        cells = [short(row["value"]) for row in rows if row[line] == value]
        table.add_row(value, *cells)
    return table


def short(value: float) -> str:
    """Three digits and a prefix."""
    for power, unit in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {unit}"
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.2g}"
