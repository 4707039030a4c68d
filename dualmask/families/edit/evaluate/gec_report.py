"""Tables of `dualmask eval gec`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dualmask.evaluation.report import distinct_values, find
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import interval, make_table, value

COLUMNS = ("gleu", "gleu_gain", "f05", "precision", "recall", "better", "worse")


def gec_tables(rows: Sequence[Row]) -> list[Table]:
    measured = [row for row in rows if "method" in row]
    heads = ["method", *COLUMNS, "95 % interval\nof gleu_gain", "95 % interval\nof f05"]
    methods = make_table("Corrections against those of people", heads)
    for (method,) in distinct_values(measured, "method"):
        found = {metric: find(measured, metric=metric, method=method) for metric in COLUMNS}
        methods.add_row(method, *map(value, found.values()), interval(found["gleu_gain"]), interval(found["f05"]))
    seconds, size = find(rows, metric="seconds"), find(rows, metric="bytes")
    cost = make_table("The model", ["", "value", "95 % interval"])
    milliseconds = {key: 1000 * seconds[key] for key in ("value", "lo", "hi")}
    cost.add_row(f"ms for {seconds['characters']} characters", value(milliseconds), interval(milliseconds))
    cost.add_row("MB of weights", f"{size['value'] / 1e6:.1f}", "")
    return [methods, cost]
