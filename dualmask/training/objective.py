"""Model and loss as one module that returns plain tensors, a window of rounds at a time. Knows nothing of engines."""

# B sequences of this rank

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dualmask.config.schema import StageConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.edit import multi_round
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.losses.total import round_loss, window_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.reward import Reward, RewardObjective
from dualmask.families.lm.losses import language_model_loss
from dualmask.families.lm.model import LanguageModel
from dualmask.families.span.losses import GIVEN, span_loss
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.rollout import draft, rollout


class Objective(nn.Module):
    """DeepSpeed hangs its hooks on this module's inputs and outputs."""

    def __init__(self, model: DualMask, typos: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("typos", typos, persistent=False)  # see dualmask/core/typos.py

    def forward(
        self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None, *, inspect: bool = False
    ) -> Any:
        """(loss, its parts, the state behind the rounds ``rounds``); with ``inspect`` (the rounds, that state).

        ``state`` None: the rounds begin here. The returned state carries no gradient.
        """
        if "picker" not in plan.stage.train:
            out = self.model(batch, plan)
            if inspect:
                return [out], None
            report = round_loss(out, plan)
            return report.total, report.parts, None
        if state is None:
            state = multi_round.begin(batch, plan, self.typos)
        state, outs = multi_round.unroll(self.model, state, batch, plan, rounds)
        if inspect:
            return outs, state
        report = window_loss(outs, rounds, plan)
        total = report.total + self._reinforced(outs, plan)
        return total, report.parts, state.detach()

    def _reinforced(self, outs: list[RoundOut], plan: StepPlan) -> Tensor | float:
        names = reinforce.decisions(plan.stage, self.model.config)
        if not names or plan.loss_weight["reinforce"] == 0:
            return 0.0
        assert outs[-1].cost is not None
        return plan.loss_weight["reinforce"] * reinforce.loss(outs, -outs[-1].cost, names, plan.stage.rollout.samples)


class LanguageModelObjective(nn.Module):
    """The same for a language model, which plays no rounds."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, plan: StepPlan, rounds: range, state: None, *, inspect: bool = False) -> Any:
        if inspect:
            return [], None
        report = language_model_loss(self.model(batch, plan), batch, self.model.given)
        return report.total, report.parts, None


class SpanObjective(nn.Module):
    """The same for SpanFusionLM. A teacher of its own, where the stage wants one, follows the model slowly."""

    def __init__(self, model: SpanFusion, stage: StageConfig) -> None:
        super().__init__()
        self.model = model
        self.teacher: SpanFusion | None = None
        self.decay = stage.span.ema_decay if stage.span else 1.0
        if stage.span and stage.span.teacher == "ema" and stage.span.losses.latent > 0:
            self.teacher = SpanFusion(model.config, model.vocab_size)
            self.teacher.load_state_dict(model.state_dict())
            self.teacher.requires_grad_(False)

    def forward(self, batch: Batch, plan: StepPlan, rounds: range, state: None, *, inspect: bool = False) -> Any:
        if inspect:
            return [], draft(self.model, batch, plan) if plan.stage.span else None
        if plan.stage.span is None:
            out = self.model.next_tokens(batch, self.model.read(batch))  # remembers nothing: there is no span
            report = language_model_loss(out, batch, GIVEN)
        else:
            report = span_loss(rollout(self.model, batch, plan, self.teacher), batch, plan)
        return report.total, report.parts, None


def objective(
    model: nn.Module, stage: StageConfig, typos: Tensor | None = None, reward: Reward | None = None
) -> nn.Module:
    """The objective of the model's family, and of the stage."""
    if isinstance(model, LanguageModel):
        return LanguageModelObjective(model)
    if isinstance(model, SpanFusion):
        return SpanObjective(model, stage)
    assert isinstance(model, DualMask)
    return RewardObjective(model, reward, typos) if stage.reward else Objective(model, typos)
