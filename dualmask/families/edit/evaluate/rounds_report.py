"""Tables and plots of `dualmask eval editing` and `dualmask eval adaptive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from dualmask.evaluation import plots
from dualmask.evaluation.report import distinct_values, find, select
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import interval, make_table, value
from dualmask.families.edit.evaluate.adaptive import FITTED, THRESHOLDS
from dualmask.families.edit.evaluate.editing import Curve

EDITING = {
    "f05": "F0.5",
    "precision": "prec.",
    "recall": "recall",
    "detection_f05": "spans\nF0.5",
    "clean_untouched": "clean\nuntouched",
    "length_error": "length\nerror",
    "edit_distance": "distance\nto text",
}
ADAPTIVE = {
    "rounds": "rounds",
    "quality": "quality",
    "quality_kept": "kept",
    "rounds_saved": "saved",
    "gain_over_fixed": "over\nfixed",
}
AREAS = {"gate_auc": "corrupted or clean text?", "wrong_auc": "wrong or right token?"}


def editing_tables(rows: Sequence[Row]) -> list[Table]:
    """Methods; what more rounds add; recall of each kind of error; areas under the ROC curves."""
    methods = make_table("Edits of corrupted texts", ["method", "rounds", *EDITING.values()])
    whole = [row for row in rows if "kind" not in row and row["metric"] in EDITING]
    for method, rounds in distinct_values(whole, "method", "rounds"):
        cells = (find(whole, metric=metric, method=method, rounds=rounds) for metric in EDITING)
        methods.add_row(method, str(rounds), *map(value, cells))
    gains = _gains_table("F0.5 gained by more rounds of `auto`", select(rows, metric="f05_gain"))
    by_kind = [row for row in rows if "kind" in row]
    recall = make_table("Recall by kind of error", ["method", *(kind for (kind,) in distinct_values(by_kind, "kind"))])
    for (method,) in distinct_values(by_kind, "method"):
        recall.add_row(method, *map(value, select(by_kind, method=method)))
    areas = make_table("Area under the ROC curve", ["question", "by", "area", "95 % interval"])
    for row in rows:
        if row["metric"] in AREAS:
            areas.add_row(AREAS[row["metric"]], row["method"], value(row), interval(row))
    return [methods, *gains, recall, areas]


def adaptive_tables(rows: Sequence[Row]) -> list[Table]:
    """Quality by number of rounds and start state; what more rounds add; what each rule keeps and saves."""
    by_rounds = select(rows, metric="quality_by_rounds")
    numbers = sorted({row["rounds"] for row in by_rounds})
    quality = make_table("Quality after so many rounds", ["start", *map(str, numbers)])
    for (start,) in distinct_values(by_rounds, "start"):
        quality.add_row(start, *(value(find(by_rounds, start=start, rounds=number)) for number in numbers))
    gains = _gains_table("Quality gained by more rounds", select(rows, metric="quality_gain"))
    rules = make_table("Stop rules, thresholds chosen on other texts", ["rule", *ADAPTIVE.values()])
    fitted = select(rows, threshold=FITTED)
    for (method,) in distinct_values(fitted, "method"):
        rules.add_row(method, *(value(find(fitted, metric=metric, method=method)) for metric in ADAPTIVE))
    return [quality, *gains, rules]


def _gains_table(title: str, rows: Sequence[Row]) -> list[Table]:
    """Over the fewest rounds; no table where there are no more."""
    if not rows:
        return []
    table = make_table(title, ["of", "rounds", f"over {rows[0]['over']}", "95 % interval"])
    for row in rows:
        table.add_row(str(row.get("start", row.get("method"))), str(row["rounds"]), value(row), interval(row))
    return [table]


def plot_editing(curves: Mapping[str, Curve], path: Path) -> None:
    """ROC curves: whole texts on the left, tokens on the right."""
    with plots.panels(path, len(AREAS), size=(4.2, 4.0)) as panels:
        for panel, (metric, title) in zip(panels, AREAS.items(), strict=True):
            for name, (false_positives, true_positives) in curves.items():
                if name.startswith(metric):
                    panel.plot(false_positives, true_positives, label=name.removeprefix(metric).strip())
            panel.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
            panel.set(title=title, xlabel="share of right ones taken for wrong", ylabel="share of wrong ones found")
            panel.legend(loc="lower right")


def plot_adaptive(rows: Sequence[Row], path: Path) -> None:
    """Quality over the mean number of rounds: fixed numbers as points, rules as curves over their thresholds."""
    with plots.panels(path, size=(6.0, 4.4)) as (panel,):
        panel.plot(*_points(rows, "fixed"), marker="o", color="black", label="fixed")
        for method in THRESHOLDS:
            (line,) = panel.plot(*_points(rows, method), marker=".", label=method)
            panel.plot(*_points(rows, f"{method}_shuffled"), marker="x", linestyle="", color=line.get_color())
        panel.set(xlabel="mean number of rounds (×: dealt to other texts)", ylabel="quality")
        panel.legend(loc="lower right")


def _points(rows: Sequence[Row], method: str) -> tuple[list[float], list[float]]:
    """(mean rounds, quality) of a method, by rising number of rounds."""
    rounds, quality = (
        [row["value"] for row in select(rows, method=method, metric=metric)] for metric in ("rounds", "quality")
    )
    points = sorted(zip(rounds, quality, strict=True))
    return [x for x, _ in points], [y for _, y in points]
