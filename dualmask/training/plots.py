"""Plots of a run's record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualmask.config.stage import StageConfig
from dualmask.curriculum import first_step
from dualmask.training.metrics import read_lines


def plot_losses(record: Path, stage_index: int, stages: Sequence[StageConfig]) -> Any:
    """A matplotlib figure with one panel for each loss and diagnostic of one stage, over the steps of the run."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, any thread

    begin = first_step(stages, stage_index)
    end = begin + stages[stage_index].steps
    curves: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for _, line in read_lines(record):
        if begin <= line["step"] < end:
            for name, value in line["losses"].items():
                if value is not None:
                    curves[name][0].append(line["step"])
                    curves[name][1].append(value)
    columns = 3
    rows = max(-(-len(curves) // columns), 1)
    figure = Figure(figsize=(4 * columns, 2.5 * rows), layout="constrained")
    for number, (name, (steps, values)) in enumerate(curves.items()):
        panel = figure.add_subplot(rows, columns, number + 1)
        panel.plot(steps, values, linewidth=0.8)
        panel.set_title(name, fontsize=9)
    figure.suptitle(f"stage {stage_index}: {stages[stage_index].name}")
    return figure
