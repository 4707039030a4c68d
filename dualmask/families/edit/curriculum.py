"""What a step of DualMaskLM does: scheduled values, rounds to unroll, and how many of them have been earned. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dualmask.curriculum import StepPlan
from dualmask.families.edit.config import EditStage, LossWeights, RoundStage

EARN_STEPS = 50  # steps over which the criterion `add_round_at` is averaged


@dataclass(frozen=True)
class Earned:
    """Rounds added by `add_round_at` so far, and the mean in the making. Part of a checkpoint."""

    rounds: int = 0
    steps: int = 0
    total: float = 0.0

    def after(self, stage: EditStage, restored_prob: float) -> Earned:
        """Behind a step whose restored tokens had this mean probability."""
        goal = stage.rollout.add_round_at if isinstance(stage, RoundStage) else None
        if goal is None:
            return self
        steps, total = self.steps + 1, self.total + restored_prob
        if steps < EARN_STEPS:
            return Earned(self.rounds, steps, total)
        return Earned(self.rounds + (total / steps >= goal))


class EditPlan(StepPlan):
    """A step's plan with the values of its schedules."""

    stage: RoundStage  # in a step that plays no rounds, another EditStage

    @classmethod
    def of(cls, plan: StepPlan) -> EditPlan:
        if isinstance(plan, cls):
            return plan
        return cls(plan.step, plan.stage_index, plan.stage, plan.step_in_stage, plan.memory)

    @cached_property
    def keep_rate_low(self) -> float:
        return self.stage.deletion.keep_rate_low.at(self.progress)

    @cached_property
    def keep_rate_high(self) -> float:
        return self.stage.deletion.keep_rate_high.at(self.progress)

    @cached_property
    def temperature(self) -> float:
        return self.stage.deletion.temperature.at(self.progress)

    @cached_property
    def max_delete_rate(self) -> float:
        return self.stage.deletion.max_delete_rate.at(self.progress)

    @cached_property
    def fill_temperature(self) -> float:
        return self.stage.rollout.fill_temperature.at(self.progress)

    @cached_property
    def loss_weight(self) -> dict[str, float]:
        names = (name for name in LossWeights.model_fields if name != "kept_weight")
        return {name: getattr(self.stage.losses, name).at(self.progress) for name in names}

    @cached_property
    def rounds(self) -> int:
        """Unrolled in this step; 1 where nobody picks: there the holes are random."""
        if not isinstance(self.stage, RoundStage):
            return 1
        return rounds_at(self.stage, self.step_in_stage, Earned(**self.memory.get("earned", {})).rounds)

    @cached_property
    def windows(self) -> list[range]:
        """The rounds, W at a time: each window is one backward pass (truncated BPTT)."""
        width = self.stage.rollout.window if isinstance(self.stage, RoundStage) else 1
        return [range(first, min(first + width, self.rounds)) for first in range(0, self.rounds, width)]


def rounds_at(stage: RoundStage, step_in_stage: int, earned: int) -> int:
    """Rounds to unroll: from ``first_rounds`` one more every so many steps, or as many more as were ``earned`` by the
    criterion ``add_round_at``; without either all of them."""
    rollout = stage.rollout
    if rollout.add_round_every is not None:
        return min(rollout.first_rounds + step_in_stage // rollout.add_round_every, rollout.rounds)
    if rollout.add_round_at is not None:
        return min(rollout.first_rounds + earned, rollout.rounds)
    return rollout.rounds
