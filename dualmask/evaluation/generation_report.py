"""The table and the plot of `dualmask eval generation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from dualmask.evaluation.generation import MATCHED
from dualmask.evaluation.statistics import Row

SETTINGS = ("rounds", "fill_steps", "steps", "order")
COSTS = ("passes", "tokens_per_second")
HEADINGS = (
    "given",
    "method",
    "matched\nperpl.",
    "T",
    "perpl.",
    "dist.2",
    "s.BLEU",
    "repeat",
    "passes",
    "tokens\n/ s",
)
CAPTION = (
    "given: tokens of the prompt; dualmask: rounds and fill steps of each; diffusion: steps and order; matched: where "
    "the texts are as varied (distinct2) as the held-out ones, the reference; all rows and intervals: --json"
)

Kind = tuple[str, tuple[tuple[str, Any], ...]]  # a method and its settings


def kinds(rows: Sequence[Row]) -> list[Kind]:
    """Methods with their settings, in the order of the rows."""
    return list(dict.fromkeys(_kind(row) for row in rows))


def table(rows: Sequence[Row]) -> Table:
    """A line for every method and kind of prompt: its perplexity where it is as varied as the held-out texts, all else
    at the temperature that comes nearest to that, and what a text costs."""
    out = Table(title="Texts written behind prompts", caption=CAPTION, box=SIMPLE, padding=(0, 1, 0, 0))
    for name in HEADINGS:
        out.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for prompt in dict.fromkeys(row["prompt"] for row in rows):
        of_prompt = [row for row in rows if row["prompt"] == prompt]
        (varied,) = (row["value"] for row in of_prompt if row["method"] == "reference" and row["metric"] == "distinct2")
        for kind in kinds(of_prompt):
            out.add_row(str(prompt), label(kind), *_cells([row for row in of_prompt if _kind(row) == kind], varied))
    return out


def _cells(rows: Sequence[Row], varied: float) -> list[str]:
    """Of one method and prompt, in the order of the table's columns."""
    tried = [row for row in rows if row["metric"] == "distinct2"]
    at = min(tried, key=lambda row: abs(row["value"] - varied)).get("temperature")
    found = {row["metric"]: row["value"] for row in rows if row.get("temperature") == at or row["metric"] in COSTS}
    matched = [row["value"] for row in rows if row.get("temperature") == MATCHED]
    cells = [f"{matched[0]:.1f}" if matched else "", "" if at is None else f"{at:g}"]
    formats = {"perplexity": ".1f", "distinct2": ".3f", "self_bleu": ".3f", "repeated": ".3f"}
    formats |= dict.fromkeys(COSTS, ".0f")
    return cells + [format(found[name], how) if name in found else "" for name, how in formats.items()]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Perplexity over distinct-2, a panel for each kind of prompt, one line a method along its temperatures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    figure, panels = pyplot.subplots(1, len(prompts), figsize=(6 * len(prompts), 4.5), sharey=True, squeeze=False)
    for panel, prompt in zip(panels[0], prompts, strict=True):
        of_prompt = [row for row in rows if row["prompt"] == prompt]
        for kind in kinds(of_prompt):
            points = _curve([row for row in of_prompt if _kind(row) == kind])
            alone = {"marker": "*", "markersize": 14, "color": "black", "linestyle": ""}
            panel.plot(*points, label=label(kind), **(alone if kind[0] == "reference" else {"marker": "o"}))
        panel.set(title=f"{prompt} tokens given", xlabel="distinct-2 (higher: more varied)", yscale="log")
    panels[0][0].set_ylabel("perplexity of the outside judge (lower: better)")
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _curve(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """(distinct-2, perplexity) at each temperature that has both."""
    value = {(row["metric"], row.get("temperature")): row["value"] for row in rows}
    at = [
        temperature for metric, temperature in value if metric == "distinct2" and ("perplexity", temperature) in value
    ]
    return [value["distinct2", temperature] for temperature in at], [
        value["perplexity", temperature] for temperature in at
    ]


def label(kind: Kind) -> str:
    method, settings = kind
    return " ".join([method, *(str(value) for _, value in settings)])


def _kind(row: Row) -> Kind:
    return row["method"], tuple((name, row[name]) for name in SETTINGS if name in row)
