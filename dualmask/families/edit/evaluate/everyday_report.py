"""Tables of `dualmask eval everyday`, and its sentences one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from dualmask.evaluation.report import distinct_values, find
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import interval, make_table, value
from dualmask.families.edit.evaluate.everyday import FIGURES, Outcome

COLUMNS = {
    **{figure: figure for figure in FIGURES},
    "clean_untouched": "clean\nuntouched",
    "doubled_mended": "doubled\nmended",
}


def everyday_tables(rows: Sequence[Row]) -> list[Table]:
    """Methods, with the interval of the first figure; the model by kind of error."""
    whole = [row for row in rows if "kind" not in row]
    methods = make_table("Everyday errors", ["method", *COLUMNS.values(), "95 % interval\nof better"])
    for (method,) in distinct_values(whole, "method"):
        cells = [value(find(whole, metric=metric, method=method)) for metric in COLUMNS]
        methods.add_row(method, *cells, interval(find(whole, metric="better", method=method)))
    by_kind = [row for row in rows if "kind" in row]
    kinds = make_table("auto, by kind of error", ["kind", *FIGURES, "cases"])
    for (kind,) in distinct_values(by_kind, "kind"):
        found = [find(by_kind, metric=figure, method="auto", kind=kind) for figure in FIGURES]
        kinds.add_row(kind, *map(value, found), str(found[0]["n"]))
    return [methods, kinds]


def sentences(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line a sentence: mark, kind, and what became of it."""
    for outcome in outcomes:
        change = "" if outcome.unchanged else f" → {outcome.output}"
        yield f"{outcome.mark:7} {outcome.case.kind:13} {outcome.case.wrong}{change}"
