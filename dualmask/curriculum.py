"""Which step does what. Pure: from the configuration and a step number to a plan; no state, no clock, no torch."""

from __future__ import annotations

import zlib
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
    fill_temperature: float
    max_delete_rate: float
    rounds: int  # unrolled in this step
    loss_weight: dict[str, float]

    @property
    def windows(self) -> list[range]:
        """The rounds, W at a time: each window is one backward pass (truncated BPTT)."""
        width = self.stage.rollout.window
        return [range(first, min(first + width, self.rounds)) for first in range(0, self.rounds, width)]

    @property
    def span_length(self) -> int:
        """K of this step, the same on every rank."""
        assert self.stage.span is not None
        lengths = self.stage.span.lengths
        return lengths[zlib.crc32(f"span {self.step}".encode()) % len(lengths)]

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


def rounds_at(stage: StageConfig, step_in_stage: int, earned: int) -> int:
    """Rounds to unroll: from ``first_rounds`` one more every so many steps, or as many more as were ``earned`` by the
    criterion ``add_round_at``; without either all of them. One where nobody picks: there the holes are random."""
    how = stage.rollout
    if "picker" not in stage.train:
        return 1
    if how.add_round_every is not None:
        return min(how.first_rounds + step_in_stage // how.add_round_every, how.rounds)
    if how.add_round_at is not None:
        return min(how.first_rounds + earned, how.rounds)
    return how.rounds


EARN_STEPS = 50  # steps over which the criterion `add_round_at` is averaged


@dataclass(frozen=True)
class Earned:
    """Rounds added by `add_round_at` so far, and the mean in the making. Part of a checkpoint."""

    rounds: int = 0
    steps: int = 0
    total: float = 0.0

    def after(self, stage: StageConfig, restored_prob: float) -> Earned:
        """Behind a step whose restored tokens had this mean probability."""
        goal = stage.rollout.add_round_at
        if goal is None:
            return self
        steps, total = self.steps + 1, self.total + restored_prob
        if steps < EARN_STEPS:
            return Earned(self.rounds, steps, total)
        return Earned(self.rounds + (total / steps >= goal))


def plan_at(stages: Sequence[StageConfig], step: int, earned_rounds: int = 0) -> StepPlan:
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
                fill_temperature=stage.rollout.fill_temperature.at(progress),
                max_delete_rate=stage.deletion.max_delete_rate.at(progress),
                rounds=rounds_at(stage, inside, earned_rounds),
                loss_weight=_weights(stage.losses, progress),
            )
        start += stage.steps
    raise IndexError(f"step {step} is behind the last step {start - 1}")


def _weights(losses: LossWeights, progress: float) -> dict[str, float]:
    scheduled = {name: getattr(losses, name) for name in LossWeights.model_fields if name != "kept_weight"}
    return {name: schedule.at(progress) for name, schedule in scheduled.items()}
