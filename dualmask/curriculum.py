"""Which step does what. Pure: from the configuration and a step number to a plan; no state, no clock, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualmask.config.schedule import Schedule
from dualmask.config.stage import StageConfig


@dataclass(frozen=True)
class StepPlan:
    """What an optimizer step needs to know about its place in the curriculum; families derive the rest from it."""

    step: int
    stage_index: int
    stage: Any  # the family's own kind of StageConfig
    step_in_stage: int
    memory: Mapping[str, Any] = field(default_factory=dict)  # what the stage's task remembers of the steps before

    @property
    def progress(self) -> float:
        """Of the stage, [0, 1)."""
        return self.step_in_stage / int(self.stage.steps)

    @property
    def lr(self) -> float:
        """Of the stage's modules whose lr_scale is 1."""
        return learning_rate(self.stage, self.step_in_stage)

    @property
    def is_last_of_stage(self) -> bool:
        return self.step_in_stage == int(self.stage.steps) - 1


def total_steps(stages: Sequence[StageConfig]) -> int:
    return sum(stage.steps for stage in stages)


def first_step(stages: Sequence[StageConfig], index: int) -> int:
    return sum(stage.steps for stage in stages[:index])


def learning_rate(stage: StageConfig, step_in_stage: int) -> float:
    """Linear warm-up, then constant, linear or half-cosine decay to ``final_share`` of the peak at the last step.

    ``wsd`` (warm-up, stable, decay) stays at the peak and falls linearly over the stage's last steps only.
    """
    lr = stage.lr
    if step_in_stage < lr.warmup_steps:
        return lr.peak * (step_in_stage + 1) / lr.warmup_steps
    if lr.decay == "constant":
        return lr.peak
    if lr.decay == "wsd":
        falling = lr.falling_steps(stage.steps)
        fallen = max(step_in_stage + 1 - (stage.steps - falling), 0) / falling
        return Schedule(start=lr.peak, end=lr.peak * lr.final_share).at(fallen)
    rest = max(stage.steps - 1 - lr.warmup_steps, 1)
    line = Schedule(start=lr.peak, end=lr.peak * lr.final_share, shape=lr.decay)
    return line.at((step_in_stage - lr.warmup_steps) / rest)


def plan_at(stages: Sequence[StageConfig], step: int, memory: Mapping[str, Any] | None = None) -> StepPlan:
    """The plan of global step ``step`` (0-based). Raises IndexError behind the last step."""
    if step < 0:
        raise IndexError(f"step {step} is negative")
    start = 0
    for index, stage in enumerate(stages):
        if step < start + stage.steps:
            return StepPlan(step, index, stage, step - start, memory or {})
        start += stage.steps
    raise IndexError(f"step {step} is behind the last step {start - 1}")
