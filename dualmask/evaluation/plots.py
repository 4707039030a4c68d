"""Plots of figures: a row of panels in a PNG file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualmask.evaluation.statistics import Row

DOTS_PER_INCH = 110


@contextmanager
def panels(path: Path, number: int = 1, *, size: tuple[float, float], sharey: bool = False) -> Iterator[list[Any]]:
    """``number`` matplotlib axes side by side, each of ``size`` inches; saved to ``path`` at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width, height = size
    figure, axes = pyplot.subplots(1, number, figsize=(number * width, height), sharey=sharey, squeeze=False)
    try:
        yield list(axes[0])
        figure.tight_layout()
        figure.savefig(path, dpi=DOTS_PER_INCH)
    finally:
        pyplot.close(figure)


def line_with_interval(panel: Any, x: Sequence[float], rows: Sequence[Row], *, alpha: float = 0.2, **style: Any) -> Any:
    """A marked line through the values, and their intervals as a band. Returns the line."""
    (line,) = panel.plot(x, [row["value"] for row in rows], marker="o", **style)
    panel.fill_between(x, [row["lo"] for row in rows], [row["hi"] for row in rows], color=line.get_color(), alpha=alpha)
    return line
