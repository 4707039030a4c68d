"""Tables and plot of `dualmask eval span`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from dualmask.evaluation import plots
from dualmask.evaluation.report import distinct_values, find, select, values
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import interval, make_table, value
from dualmask.families.span.evaluate.gate import THIRDS

FIGURES = {  # metric: (heading, format)
    "steps": ("steps", ".2f"),
    "tokens_per_pass": ("tok. /\npass", ".2f"),
    "span_accuracy": ("slots\nright", ".3f"),
    "prefix": ("pre-\nfix", ".3f"),
    "gold_nll": ("gold\nnats", ".3f"),
    "pred_nll": ("pred\nnats", ".3f"),
    "own_perplexity": ("own\nppl", ".3g"),
    "outside_perplexity": ("out.\nppl", ".3g"),
    "distinct2": ("dist2", ".3f"),
    "seconds": ("ms a\nspan", ".2f"),
    "speedup_vs_ar": ("× as\nfast", ".2f"),
}
TIGHT: dict[str, Any] = {"padding": 0, "pad_edge": False}
METHODS_CAPTION = (
    "prefix: right from the first token on; gold nats: of a true token, written in the model's own schedule; pred "
    "nats: by the decoder's own logits; ppl: perplexity; passes: of the decoder; intervals and all rows: --json"
)
GATE = {
    "steps": "mean steps",
    "steps_gap": "steps, hard − easy third",
    "quality_kept": "probability of a true token, over that of",
    "gain_kept": "gain of all steps over one, share kept",
    "gain_over_fixed": "nats per token gained over the randomised baseline",
    "steps_saved": "steps saved while gold is written",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """The arms side by side; what the learned gate does, with its control."""
    return [_arms(rows), _gate(rows)]


def _arms(rows: Sequence[Row]) -> Table:
    plain = [row for row in rows if row["metric"] in FIGURES and "third" not in row]
    columns = {name: column for name, column in FIGURES.items() if select(plain, metric=name)}
    headings = ["method", *(heading for heading, _ in columns.values())]
    table = make_table("Spans behind prompts of held-out texts", headings, **TIGHT, caption=METHODS_CAPTION)
    for (method,) in distinct_values(plain, "method"):
        figures = values(select(plain, method=method))
        if "seconds" in figures:
            figures["seconds"] *= 1000
        cells = [format(figures[name], spec) if name in figures else "" for name, (_, spec) in columns.items()]
        table.add_row(method, *cells)
    return table


def _gate(rows: Sequence[Row]) -> Table:
    title = "The learned gate (shuffled: its steps dealt to other spans)"
    table = make_table(title, ["figure", "value", "95 % interval"], **TIGHT)
    for row in rows:
        if row["metric"] not in GATE or (row["metric"] == "steps" and "third" not in row):
            continue
        which = row.get("third") or row.get("against") or ("shuffled" if row["method"] == "shuffled" else "")
        label = f"{GATE[row['metric']]}{f': {which}' if which else ''}"
        table.add_row(label, value(row), interval(row))
    return table


def plot(rows: Sequence[Row], path: Path) -> None:
    """Calibration of the gate; the likelihood that steps buy; steps of easy and hard spans."""
    with plots.panels(path, 3, size=(4.5, 4.0)) as (calibration, likelihood, thirds):
        _plot_calibration(rows, calibration)
        _plot_likelihood(rows, likelihood)
        _plot_thirds(rows, thirds)


def _plot_calibration(rows: Sequence[Row], panel: Any) -> None:
    """Bins of the entropy that the gate reads first: steps taken, and on the right axis what all steps would gain."""
    panel.set(title="Does the gate go on where it pays?", xlabel="mean entropy at the first step, nats")
    right = panel.twinx()
    for axis, metric, name, color in (
        (right, "calibration_gain", "nats per token that all steps gain", "tab:orange"),
        (panel, "calibration_steps", "steps taken", "tab:blue"),
    ):
        bins = select(rows, metric=metric)
        plots.line_with_interval(axis, [row["entropy"] for row in bins], bins, color=color)
        axis.set_ylabel(name, color=color)
    right.axhline(0, color="tab:orange", linewidth=0.5)
    panel.set_ylim(0.8, _most(rows) + 0.2)


def _plot_likelihood(rows: Sequence[Row], panel: Any) -> None:
    """Nats of a true token over mean steps: fixed numbers as a line, the learned gate as a star."""
    nats = {row["method"]: row for row in select(rows, metric="gold_nll")}
    steps = range(1, _most(rows) + 1)
    fixed = [nats[f"fixed:{number}"] for number in steps]
    plots.line_with_interval(panel, steps, fixed, alpha=0.1, color="black", label="fixed")
    panel.plot(
        find(rows, metric="gold_steps")["value"],
        nats["learned"]["value"],
        marker="*",
        markersize=14,
        linestyle="",
        label="learned",
    )
    panel.axhline(nats["autoregressive"]["value"], color="grey", linestyle="--", label="autoregressive")
    panel.set(title="What steps buy", xlabel="mean steps", ylabel="nats a true token", xticks=list(steps))
    panel.legend()


def _plot_thirds(rows: Sequence[Row], panel: Any) -> None:
    thirds = [find(rows, third=name) for name in THIRDS]
    below_and_above = [[row["value"] - row["lo"] for row in thirds], [row["hi"] - row["value"] for row in thirds]]
    panel.bar(THIRDS, [row["value"] for row in thirds], yerr=below_and_above, capsize=4, color="tab:blue", alpha=0.7)
    panel.axhline(
        find(rows, metric="steps", method="learned", third=None)["value"],
        color="grey",
        linestyle="--",
        label="shuffled",
    )
    panel.set(title="Steps by difficulty of the span", ylabel="mean steps of the learned gate", ylim=(0, _most(rows)))
    panel.legend()


def _most(rows: Sequence[Row]) -> int:
    """Steps that write anything."""
    return sum(row["metric"] == "gold_nll" and row["method"].startswith("fixed:") for row in rows)
