"""What the stages of DualMaskLM teach, a window of rounds at a time."""

# B sequences of this rank

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.edit import multi_round, preview
from dualmask.families.edit.alarms import Watch
from dualmask.families.edit.config import EditAlarms
from dualmask.families.edit.curriculum import Earned, EditPlan
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.losses.gate import gate_open
from dualmask.families.edit.losses.total import round_loss, window_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.reference import Reference
from dualmask.families.task import AfterStep, Preview, Task, WindowLoss


class EditTask(Task):
    """Stages whose holes are random: to be counted and filled in place."""

    model: DualMask

    def __init__(self, model: DualMask, alarms: EditAlarms | None = None) -> None:
        super().__init__(model)
        self.alarms = alarms or EditAlarms()

    def windows(self, plan: StepPlan) -> list[range]:
        return EditPlan.of(plan).windows

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        plan = EditPlan.of(plan)
        return round_loss(self.model(batch, plan), plan)

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        return preview.holes(self.model(batch, EditPlan.of(plan)), batch, tokenizer)

    def after_step(self, plan: StepPlan, metrics: Mapping[str, float]) -> AfterStep:
        """Adds ``gate_open``; counts towards further rounds (`add_round_at`) and towards alarms."""
        metrics = dict(metrics) | gate_open(metrics)
        watch = Watch(**plan.memory.get("watch", {}))
        watch, alarms = watch.after(self.alarms, metrics, plan.stage.name, plan.step)
        earned = Earned(**plan.memory.get("earned", {})).after(plan.stage, metrics.get("restored_prob", 0.0))
        return AfterStep(metrics, {"earned": asdict(earned), "watch": asdict(watch)}, alarms)


class RoundsTask(EditTask):
    """Stages that play rounds on start states of many kinds (families/edit/multi_round.py)."""

    def __init__(self, model: DualMask, alarms: EditAlarms | None = None, typos: Tensor | None = None) -> None:
        """typos: see core/typos.py; None: what would be misspelt is substituted instead."""
        super().__init__(model, alarms)
        self.register_buffer("typos", typos, persistent=False)

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        plan = EditPlan.of(plan)
        outs, state = self.play(batch, plan, rounds, state)
        loss = window_loss(outs, rounds, plan)
        return WindowLoss(loss.total + self._reinforced(outs, plan), loss.parts, state.detach())

    def play(
        self, batch: Batch, plan: EditPlan, rounds: range, state: RoundState | None = None
    ) -> tuple[list[RoundOut], RoundState]:
        """The rounds ``rounds``, and the drafts that they lead to. ``state`` None: they begin here."""
        if state is None:
            state = multi_round.begin(batch, plan, self.typos)
        state, outs = multi_round.unroll(self.model, state, batch, plan, rounds, self.reference)
        return outs, state

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        plan = EditPlan.of(plan)
        outs, state = self.play(batch, plan, range(plan.rounds))
        return preview.rounds(outs, state, batch, plan, tokenizer)

    @property
    def reference(self) -> Reference | None:
        """Whose decisions on the same draft are compared with the model's; None: nobody's."""
        return None

    def _reinforced(self, outs: list[RoundOut], plan: EditPlan) -> Tensor | float:
        names = reinforce.decisions(plan.stage, self.model.config)
        if not names or plan.loss_weight["reinforce"] == 0:
            return 0.0
        assert outs[-1].cost is not None
        return plan.loss_weight["reinforce"] * reinforce.loss(outs, -outs[-1].cost, names, plan.stage.rollout.samples)
