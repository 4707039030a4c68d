"""Truncated BPTT at a tiny size: memory follows the window, not the rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.rounds_memory import Setting, measure, plot, rows, settings
from benchmarks.runs import Size
from benchmarks.saved_bytes import SavedBytes
from dualmask.evaluation.report import find
from dualmask.evaluation.statistics import Row

TINY = Size(hidden=16, layers=1, length=16, sequences=4, vocabulary=64)


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    pairs = ((1, 1), (8, 1), (4, 2), (16, 2), (8, 8))
    return rows(*measure(TINY, [Setting(*pair, on) for pair in pairs for on in (False, True)], repeats=1))


def saved(measured: list[Row], rounds: int, window: int, checkpointing: bool) -> float:
    return find(measured, metric="saved_bytes", rounds=rounds, window=window, checkpointing=checkpointing)["value"]


def test_rounds_cost_no_memory(measured: list[Row]) -> None:
    assert find(measured, metric="activation_ratio_l16_l4")["value"] <= 1.10
    assert saved(measured, 16, 2, False) <= 1.10 * saved(measured, 4, 2, False)


def test_the_window_does(measured: list[Row]) -> None:
    for checkpointing in (False, True):
        assert saved(measured, 8, 8, checkpointing) > 3 * saved(measured, 16, 2, checkpointing)
    assert saved(measured, 16, 2, True) < 0.6 * saved(measured, 16, 2, False)


def test_there_is_a_time_for_everything_and_a_picture(measured: list[Row], tmp_path: Path) -> None:
    assert {row["n"] for row in measured if row["metric"] == "milliseconds"} == {1}
    assert len([row for row in measured if row["metric"] == "time_ratio_l8_l1"]) == 2
    plot(measured, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_meter() -> None:
    """exp keeps its result (4 MB), the product both factors; parameters and what is freed do not count."""
    layer = nn.Linear(1000, 1000, bias=False)
    x = torch.randn(1000, 1000, requires_grad=True)
    meter = SavedBytes([layer.weight])
    with meter.hooks():
        y = layer(x)  # keeps x
        assert meter.now == 4e6
        y = y.exp()
        assert meter.now == 8e6
        (y * y).sum().backward()  # keeps y once more, which is there
        assert (meter.now, meter.peak) == (0, 8e6)
        y.exp()  # nobody wants it
    assert meter.now == 0


def test_every_window_is_tried_once() -> None:
    assert len(set(settings((1, 2, 4), (1, 2)))) == len(settings((1, 2, 4), (1, 2))) == 12
    assert Setting(4, 4, True) in settings((1, 2, 4), (1, 2))
