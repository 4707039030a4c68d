"""Which step does what. Pure: from the configuration and a step number to a plan; no state, no clock, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualmask.config.schedule import Schedule
from dualmask.config.schema import LossWeights, StageConfig


@dataclass(frozen=True)
class StepPlan:
    """Everything that one optimizer step needs to know about its place in the curriculum."""

    step: int
    stage_index: int
    stage: StageConfig
    step_in_stage: int
    progress: float  # of the stage, [0, 1)
    lr: float  # of the stage's modules whose lr_scale is 1
    keep_rate_low: float
    keep_rate_high: float
    temperature: float
    loss_weight: dict[str, float]

    @property
    def is_last_of_stage(self) -> bool:
        return self.step_in_stage == self.stage.steps - 1


def total_steps(stages: Sequence[StageConfig]) -> int:
    return sum(stage.steps for stage in stages)


def first_step(stages: Sequence[StageConfig], index: int) -> int:
    return sum(stage.steps for stage in stages[:index])


def learning_rate(stage: StageConfig, step_in_stage: int) -> float:
    """Linear warm-up, then constant, linear or half-cosine decay to ``final_share`` of the peak at the last step."""
    lr = stage.lr
    if step_in_stage < lr.warmup_steps:
        return lr.peak * (step_in_stage + 1) / lr.warmup_steps
    if lr.decay == "constant":
        return lr.peak
    rest = max(stage.steps - 1 - lr.warmup_steps, 1)
    line = Schedule(start=lr.peak, end=lr.peak * lr.final_share, shape=lr.decay)
    return line.at((step_in_stage - lr.warmup_steps) / rest)


def plan_at(stages: Sequence[StageConfig], step: int) -> StepPlan:
    """The plan of global step ``step`` (0-based). Raises IndexError behind the last step."""
    if step < 0:
        raise IndexError(f"step {step} is negative")
    start = 0
    for index, stage in enumerate(stages):
        if step < start + stage.steps:
            inside = step - start
            progress = inside / stage.steps
            return StepPlan(
                step=step,
                stage_index=index,
                stage=stage,
                step_in_stage=inside,
                progress=progress,
                lr=learning_rate(stage, inside),
                keep_rate_low=stage.deletion.keep_rate_low.at(progress),
                keep_rate_high=stage.deletion.keep_rate_high.at(progress),
                temperature=stage.deletion.temperature.at(progress),
                loss_weight=_weights(stage.losses, progress),
            )
        start += stage.steps
    raise IndexError(f"step {step} is behind the last step {start - 1}")


def _weights(losses: LossWeights, progress: float) -> dict[str, float]:
    scheduled = {name: getattr(losses, name) for name in LossWeights.model_fields if name != "kept_weight"}
    return {name: schedule.at(progress) for name, schedule in scheduled.items()}
