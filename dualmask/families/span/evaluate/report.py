"""Tables and plot of `dualmask eval span`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from dualmask.evaluation.report import find
from dualmask.evaluation.statistics import Row
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
METHODS_CAPTION = (
    "prefix: right from the first token on; gold nats: of a true token, written in the model's own schedule; pred "
    "nats: by the decoder's own logits; ppl: perplexity; passes: of the decoder; intervals and all rows: --json"
)
GATE = {
    "steps": "mean steps",
    "steps_gap": "steps, hard − easy third",
    "quality_kept": "probability of a true token, over that of",
    "gain_kept": "gain of all steps over one, share kept",
    "gain_over_fixed": "nats a token gained over the best fixed lottery",
    "steps_saved": "steps saved while gold is written",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """The arms side by side; what the learned gate does, with its control."""
    return [_arms(rows), _gate(rows)]


def _arms(rows: Sequence[Row]) -> Table:
    plain = [row for row in rows if row["metric"] in FIGURES and "third" not in row]
    columns = {name: how for name, how in FIGURES.items() if any(row["metric"] == name for row in plain)}
    table = _table("Spans behind prompts of held-out texts", [heading for heading, _ in columns.values()], "method")
    table.caption = METHODS_CAPTION
    for method in dict.fromkeys(row["method"] for row in plain):
        found = {row["metric"]: row["value"] for row in plain if row["method"] == method}
        if "seconds" in found:
            found["seconds"] *= 1000
        cells = [format(found[name], how) if name in found else "" for name, (_, how) in columns.items()]
        table.add_row(method, *cells)
    return table


def _gate(rows: Sequence[Row]) -> Table:
    table = _table("The learned gate (shuffled: its steps dealt to other spans)", ["value", "95 % interval"], "figure")
    for row in rows:
        if row["metric"] not in GATE or (row["metric"] == "steps" and "third" not in row):
            continue
        which = row.get("third") or row.get("against") or ("shuffled" if row["method"] == "shuffled" else "")
        label = f"{GATE[row['metric']]}{f': {which}' if which else ''}"
        table.add_row(label, f"{row['value']:.3f}", f"{row['lo']:.3f} … {row['hi']:.3f}")
    return table


def plot(rows: Sequence[Row], path: Path) -> None:
    """Calibration of the gate; the likelihood that steps buy; steps of easy and hard spans."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (calibration, likelihood, thirds) = pyplot.subplots(1, 3, figsize=(13.5, 4.0))
    _plot_calibration(rows, calibration)
    _plot_likelihood(rows, likelihood)
    _plot_thirds(rows, thirds)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_calibration(rows: Sequence[Row], panel: Any) -> None:
    """Bins of the entropy that the gate reads first: steps taken, and on the right axis what all steps would gain."""
    panel.set(title="Does the gate go on where it pays?", xlabel="mean entropy at the first step, nats")
    right = panel.twinx()
    for axis, metric, name, color in (
        (right, "calibration_gain", "nats a token that all steps gain", "tab:orange"),
        (panel, "calibration_steps", "steps taken", "tab:blue"),
    ):
        found = [row for row in rows if row["metric"] == metric]
        entropy = [row["entropy"] for row in found]
        axis.plot(entropy, [row["value"] for row in found], marker="o", color=color)
        axis.fill_between(entropy, [row["lo"] for row in found], [row["hi"] for row in found], color=color, alpha=0.2)
        axis.set_ylabel(name, color=color)
    right.axhline(0, color="tab:orange", linewidth=0.5)
    panel.set_ylim(0.8, _most(rows) + 0.2)


def _plot_likelihood(rows: Sequence[Row], panel: Any) -> None:
    """Nats of a true token over mean steps: fixed numbers as a line, the learned gate as a star."""
    nats = {row["method"]: row for row in rows if row["metric"] == "gold_nll"}
    fixed = {number: nats[f"fixed:{number}"] for number in range(1, _most(rows) + 1)}
    panel.plot(list(fixed), [row["value"] for row in fixed.values()], marker="o", color="black", label="fixed")
    low, high = ([row[end] for row in fixed.values()] for end in ("lo", "hi"))
    panel.fill_between(list(fixed), low, high, color="black", alpha=0.1)
    panel.plot(
        find(rows, metric="gold_steps")["value"],
        nats["learned"]["value"],
        marker="*",
        markersize=14,
        linestyle="",
        label="learned",
    )
    panel.axhline(nats["autoregressive"]["value"], color="grey", linestyle="--", label="autoregressive")
    panel.set(title="What steps buy", xlabel="mean steps", ylabel="nats a true token", xticks=list(fixed))
    panel.legend()


def _plot_thirds(rows: Sequence[Row], panel: Any) -> None:
    found = {row["third"]: row for row in rows if "third" in row}
    value = [found[name]["value"] for name in THIRDS]
    off = [[v - found[n]["lo"] for v, n in zip(value, THIRDS, strict=True)]]
    off += [[found[n]["hi"] - v for v, n in zip(value, THIRDS, strict=True)]]
    panel.bar(THIRDS, value, yerr=off, capsize=4, color="tab:blue", alpha=0.7)
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


def _table(title: str, headings: Sequence[str], first: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=0, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    return table
