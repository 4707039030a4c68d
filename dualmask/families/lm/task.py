"""What a language model learns: nats per token; exact for the autoregressive one, an upper bound for diffusion."""

from __future__ import annotations

from typing import Any

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.lm.model import LanguageModel
from dualmask.families.task import Task, WindowLoss
from dualmask.nn.token_losses import mean_token_loss


class LanguageModelTask(Task):
    model: LanguageModel

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        out = self.model(batch, plan)
        nll = mean_token_loss(out, batch, self.model.given)
        return WindowLoss(nll, {"nll": nll.detach().float(), "token_prob": out.target_prob.float().mean()})
