"""Collapses that losses do not sbounds: a picker that treats all tokens alike, a Gate that is stuck (docs/method.md).

Knows figures, neither torch nor a clock. The figures of a step are the same on every rank, and so are the alarms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dualmask.families.edit.config import EditAlarms
from dualmask.families.task import Alarm

_ORDER = (
    "The order of teaching that avoids it: filler; inserter and picker by labels with picker_gradient 0; gate; then "
    "picker_gradient, small"
)


@dataclass(frozen=True)
class _Cause:
    name: str
    alarm: str
    figure: str
    holds: bool
    bound: str
    advice: str


@dataclass(frozen=True)
class Watch:
    """How many steps on end each cause has held, and which causes have raised their alarm in this stage.

    Part of a checkpoint.
    """

    steps: Mapping[str, int] = field(default_factory=dict)
    raised: tuple[str, ...] = ()

    def after(
        self, bounds: EditAlarms, figures: Mapping[str, float], stage: str, step: int
    ) -> tuple[Watch, tuple[Alarm, ...]]:
        """Behind step ``step`` with these ``figures``, and the alarms that it raises: each cause once a stage.

        What the step has no figure for stays as it is.
        """
        steps, raised = dict(self.steps), list(self.raised)
        alarms = []
        for cause in _causes(bounds, figures):
            steps[cause.name] = steps.get(cause.name, 0) + 1 if cause.holds else 0
            if steps[cause.name] >= bounds.steps and cause.name not in raised:
                raised.append(cause.name)
                first = step - steps[cause.name] + 1
                what = f"{cause.figure} {cause.bound} since step {first}, now {figures[cause.figure]:.3f}"
                text = f"ALARM step {step}, stage {stage}: {what}. {cause.advice} {_ORDER} (docs/method.md)."
                alarms.append(Alarm(cause.alarm, text))
        return Watch(steps, tuple(raised)), tuple(alarms)


def _causes(bounds: EditAlarms, figures: Mapping[str, float]) -> Iterator[_Cause]:
    if (std := figures.get("keep_std")) is not None:
        yield _Cause(
            "keep",
            "keep",
            "keep_std",
            std < bounds.keep_std,
            f"< {bounds.keep_std}",
            "The picker gives all tokens of a text the same chance to go, which is no better than chance itself. "
            "Try losses.keep_recover and losses.keep_oracle of at least 1.",
        )
    if (share := figures.get("gate_open")) is not None:
        yield _Cause(
            "gate_closed",
            "gate",
            "gate_open",
            share < bounds.gate_open_low,
            f"< {bounds.gate_open_low}",
            "The Gate has given up editing, and what it never tries it cannot learn. "
            "Try a lower losses.gate_cost, more of rollout.starts.corrupted, or a picker that was taught for longer.",
        )
        yield _Cause(
            "gate_open",
            "gate",
            "gate_open",
            share > bounds.gate_open_high,
            f"> {bounds.gate_open_high}",
            "The Gate edits whatever it sees, so that nothing is left to decide. "
            "Try a higher losses.gate_cost, or more of rollout.starts.clean.",
        )
