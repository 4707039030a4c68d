"""Tables and plots of `dualmask eval editing` and `dualmask eval adaptive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from dualmask.evaluation.statistics import Row
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
    """Methods; recall of each kind of error; areas under the ROC curves."""
    methods = _table("Edits of corrupted texts", ["method", "rounds", *EDITING.values()])
    whole = [row for row in rows if "kind" not in row and row["metric"] in EDITING]
    for method, rounds in dict.fromkeys((row["method"], row["rounds"]) for row in whole):
        found = {row["metric"]: row for row in whole if (row["method"], row["rounds"]) == (method, rounds)}
        methods.add_row(method, str(rounds), *(_share(found[metric]) for metric in EDITING))
    by_kind = [row for row in rows if "kind" in row]
    kinds = list(dict.fromkeys(row["kind"] for row in by_kind))
    recall = _table("Recall by kind of error", ["method", *kinds])
    for method in dict.fromkeys(row["method"] for row in by_kind):
        recall.add_row(method, *(_share(row) for kind in kinds for row in by_kind if _is(row, method, "kind", kind)))
    areas = _table("Area under the ROC curve", ["question", "by", "area", "95 % interval"])
    for row in rows:
        if row["metric"] in AREAS:
            interval = f"{row['lo']:.3f} … {row['hi']:.3f}"
            areas.add_row(AREAS[row["metric"]], row["method"], _share(row), interval)
    return [methods, recall, areas]


def adaptive_tables(rows: Sequence[Row]) -> list[Table]:
    """Quality by number of rounds and start state; what each rule keeps and saves."""
    by_rounds = [row for row in rows if row["metric"] == "quality_by_rounds"]
    numbers = sorted({row["rounds"] for row in by_rounds})
    quality = _table("Quality after so many rounds", ["start", *map(str, numbers)])
    for start in dict.fromkeys(row["start"] for row in by_rounds):
        of_start = {row["rounds"]: row for row in by_rounds if row["start"] == start}
        quality.add_row(start, *(_share(of_start[number]) for number in numbers))
    rules = _table("Stop rules, thresholds chosen on other texts", ["rule", *ADAPTIVE.values()])
    fitted = [row for row in rows if row.get("threshold") == FITTED]
    for method in dict.fromkeys(row["method"] for row in fitted):
        found = {row["metric"]: row for row in fitted if row["method"] == method}
        rules.add_row(method, *(_share(found[metric]) for metric in ADAPTIVE))
    return [quality, rules]


def plot_editing(curves: Mapping[str, Curve], path: Path) -> None:
    """ROC curves: whole texts on the left, tokens on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(AREAS), figsize=(8.4, 4.0))
    for panel, (metric, title) in zip(panels, AREAS.items(), strict=True):
        for name, (alarms, hits) in curves.items():
            if name.startswith(metric):
                panel.plot(alarms, hits, label=name.removeprefix(metric).strip())
        panel.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
        panel.set(title=title, xlabel="share of right ones taken for wrong", ylabel="share of wrong ones found")
        panel.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_adaptive(rows: Sequence[Row], path: Path) -> None:
    """Quality over the mean number of rounds: fixed numbers as points, rules as curves over their thresholds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6.0, 4.4))
    panel.plot(*_points(rows, "fixed"), marker="o", color="black", label="fixed")
    for method in THRESHOLDS:
        (line,) = panel.plot(*_points(rows, method), marker=".", label=method)
        panel.plot(*_points(rows, f"{method}_shuffled"), marker="x", linestyle="", color=line.get_color())
    panel.set(xlabel="mean number of rounds (×: dealt to other texts)", ylabel="quality")
    panel.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(rows: Sequence[Row], method: str) -> tuple[list[float], list[float]]:
    """(mean rounds, quality) of a method, by rising number of rounds."""
    mine = [row for row in rows if row.get("method") == method]
    rounds, quality = ([row["value"] for row in mine if row["metric"] == name] for name in ("rounds", "quality"))
    points = sorted(zip(rounds, quality, strict=True))
    return [x for x, _ in points], [y for _, y in points]


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for number, name in enumerate(headings):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _is(row: Row, method: str, name: str, value: object) -> bool:
    return row["method"] == method and row[name] == value


def _share(row: Row) -> str:
    return f"{row['value']:.3f}"
