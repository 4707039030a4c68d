"""When a collapse counts as one, and that it is said once."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from dualmask.families.edit.alarms import Alarm, Watch
from dualmask.families.edit.config import EditAlarms

HOW = EditAlarms(steps=3)


def raised(figures: list[dict[str, float]], how: EditAlarms = HOW) -> dict[int, list[Alarm]]:
    """Step → its alarms."""
    watch, seen = Watch(), {}
    for step, each in enumerate(figures):
        watch, alarms = watch.after(how, each, "joint", step)
        if alarms:
            seen[step] = list(alarms)
    return seen


@pytest.mark.parametrize(
    ("figure", "value", "name", "words"),
    [
        ("keep_std", 0.01, "keep", "same chance"),
        ("gate_open", 0.04, "gate", "given up editing"),
        ("gate_open", 0.96, "gate", "whatever it sees"),
    ],
)
def test_one_line_once(figure: str, value: float, name: str, words: str) -> None:
    (step, (alarm,)), *others = raised([{figure: 0.5}] * 2 + [{figure: value}] * 9).items()
    assert not others
    assert step == 4, "the third step in a row"
    assert alarm.name == name
    assert "\n" not in alarm.text
    for part in ("step 4", "since step 2", "stage joint", f"{value:.3f}", words, "Try ", "docs/method.md"):
        assert part in alarm.text


@pytest.mark.parametrize("figures", [{"keep_std": 0.02}, {"gate_open": 0.05}, {"gate_open": 0.95}, {"recon": 0.0}])
def test_silent_within_the_bounds(figures: dict[str, float]) -> None:
    assert not raised([figures] * 20)


def test_a_good_step_begins_the_count_anew() -> None:
    assert not raised([{"keep_std": 0.0}, {"keep_std": 0.0}, {"keep_std": 0.3}] * 5)


def test_a_missing_figure_stops_the_count() -> None:
    assert list(raised([{"keep_std": 0.0}, {}, {"keep_std": 0.0}, {}, {"keep_std": 0.0}])) == [4]


def test_a_gate_that_swings_from_closed_to_open_is_told_of_both() -> None:
    seen = raised([{"gate_open": 0.0}] * 3 + [{"gate_open": 1.0}] * 3)
    assert list(seen) == [2, 5]


def test_a_resumed_run_counts_on() -> None:
    watch, _ = Watch().after(HOW, {"keep_std": 0.0}, "joint", 0)
    watch, _ = Watch(**asdict(watch)).after(HOW, {"keep_std": 0.0}, "joint", 1)
    watch, alarms = Watch(**asdict(watch)).after(HOW, {"keep_std": 0.0}, "joint", 2)
    assert alarms
    assert Watch(**asdict(watch)).after(HOW, {"keep_std": 0.0}, "joint", 3)[1] == ()
