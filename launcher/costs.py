"""What the steps of a run cost, as the planner counts it: for the time that is left, and how its GPUs are utilised."""

from __future__ import annotations

from functools import cache

from dualmask.config.hardware import Hardware, load_hardware
from dualmask.config.schema import RunConfig
from dualmask.curriculum import StepPlan, plan_at
from dualmask.families.edit.config import RoundStage
from dualmask.families.edit.curriculum import EditPlan
from launcher.planner.flops import step_cost
from launcher.planner.passes import Shape, expected
from launcher.preflight import HARDWARE


class StepCosts:
    """Operations of steps: matrix products of forward and backward over the global batch, nothing repeated."""

    def __init__(self, run: RunConfig, vocab_size: int) -> None:
        """Raises ValueError where the planner does not know a stage."""
        self._stages = run.stages
        self._shape = Shape(run.model, vocab_size, run.batch.sequences)
        self._of = cache(self._operations)
        for index, stage in enumerate(run.stages):
            self._of(index, stage.rollout.rounds if isinstance(stage, RoundStage) else 1)

    def of(self, plan: StepPlan) -> float:
        return self._of(plan.stage_index, EditPlan.of(plan).rounds)

    def at(self, step: int) -> float:
        """Of a step of which only the number is known: rounds that must be earned are all there."""
        plan = plan_at(self._stages, step)
        if isinstance(plan.stage, RoundStage) and plan.stage.rollout.add_round_at is not None:
            return self._of(plan.stage_index, plan.stage.rollout.rounds)
        return self.of(plan)

    def _operations(self, index: int, rounds: int) -> float:
        stage = self._stages[index]
        cost = step_cost(self._shape, stage, expected(self._shape, stage)[:rounds])
        return cost.forward + cost.backward


def step_costs(run: RunConfig, vocab_size: int) -> StepCosts | None:
    """None where the planner does not know the family, or one of the stages."""
    try:
        return StepCosts(run, vocab_size)
    except ValueError:
        return None


def hardware_of(card: str) -> Hardware | None:
    """That of configs/hardware for the GPU of this name; None if there is none."""
    if "PCIe" in card:  # the files are those of SXM modules, which are faster
        return None
    known = (load_hardware(path.stem, HARDWARE) for path in sorted(HARDWARE.glob("*.yaml")))
    return next((each for each in known if each.name.split()[0] in card), None)
