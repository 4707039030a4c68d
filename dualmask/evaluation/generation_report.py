"""The table and the plot of `dualmask eval generation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from dualmask.evaluation import plots
from dualmask.evaluation.generation import MATCHED
from dualmask.evaluation.report import distinct_values, find, select, values
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.tables import make_table

COLUMNS = {  # metric: (heading, format)
    "perplexity": ("perpl.", ".1f"),
    "distinct2": ("dist.2", ".3f"),
    "self_bleu": ("s.BLEU", ".3f"),
    "repeated": ("repeat", ".3f"),
    "passes": ("passes", ".0f"),
    "tokens_per_second": ("tokens\n/ s", ".0f"),
}
COSTS = ("passes", "tokens_per_second")  # over all temperatures
NO_SETTINGS = {"metric", "value", "lo", "hi", "n", "method", "temperature", "prompt"}  # all other dimensions are


def table(rows: Sequence[Row], caption: str) -> Table:
    """A line for every writer and kind of prompt: its perplexity where it is as varied as the held-out texts, all else
    at the temperature that comes nearest to that, and what a text costs."""
    headings = ("given", "method", "matched\nperpl.", "T", *(heading for heading, _ in COLUMNS.values()))
    table = make_table("Texts written behind prompts", headings, left=(1,), title_justify="center", caption=caption)
    for (prompt,) in distinct_values(rows, "prompt"):
        of_prompt = select(rows, prompt=prompt)
        variety = find(of_prompt, method="reference", metric="distinct2")["value"]
        for name, of_writer in by_writer(of_prompt).items():
            table.add_row(str(prompt), name, *_cells(of_writer, variety))
    return table


def _cells(rows: Sequence[Row], variety: float) -> list[str]:
    """Of one writer and prompt, in the order of the table's columns. ``variety``: distinct-2 of the held-out texts."""
    nearest = min(select(rows, metric="distinct2"), key=lambda row: abs(row["value"] - variety))
    temperature = nearest.get("temperature")
    figures = values([row for row in rows if row.get("temperature") == temperature or row["metric"] in COSTS])
    matched = [f"{row['value']:.1f}" for row in select(rows, temperature=MATCHED)]
    cells = [matched[0] if matched else "", "" if temperature is None else f"{temperature:g}"]
    return cells + [format(figures[name], spec) if name in figures else "" for name, (_, spec) in COLUMNS.items()]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Perplexity over distinct-2, a panel for each kind of prompt, one line a writer along its temperatures."""
    prompts = [prompt for (prompt,) in distinct_values(rows, "prompt")]
    with plots.panels(path, len(prompts), size=(6, 4.5), sharey=True) as panels:
        for panel, prompt in zip(panels, prompts, strict=True):
            for name, of_writer in by_writer(select(rows, prompt=prompt)).items():
                point = {"marker": "*", "markersize": 14, "color": "black", "linestyle": ""}
                style = point if name == "reference" else {"marker": "o"}
                panel.plot(*_curve(of_writer), label=name, **style)
            panel.set(title=f"{prompt} tokens given", xlabel="distinct-2 (higher: more varied)", yscale="log")
        panels[0].set_ylabel("perplexity of the outside judge (lower: better)")
        panels[0].legend(fontsize=8)


def _curve(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """(distinct-2, perplexity) at each temperature that has both."""
    variety, perplexity = (
        {row.get("temperature"): row["value"] for row in select(rows, metric=metric)}
        for metric in ("distinct2", "perplexity")
    )
    temperatures = [temperature for temperature in variety if temperature in perplexity]
    return [variety[each] for each in temperatures], [perplexity[each] for each in temperatures]


def by_writer(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method with its settings, by their name, in the order of the rows."""
    writers: dict[str, list[Row]] = {}
    for row in rows:
        settings = (str(value) for name, value in row.items() if name not in NO_SETTINGS)
        writers.setdefault(" ".join([row["method"], *settings]), []).append(row)
    return writers
