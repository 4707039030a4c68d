"""What a language model learns: nats per token; exact for the autoregressive one, an upper bound for diffusion."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.lm.model import LanguageModel
from dualmask.families.task import Measure, Task, WindowLoss, ratio
from dualmask.nn.token_losses import mean_token_loss


class LanguageModelMeasure(Measure):
    """Nats and bits a token; of diffusion the bound, at fixed masks."""

    texts_at_once = None

    def sums(self, batch: Batch, plan: StepPlan) -> dict[str, Tensor]:
        model = self.task.model
        assert isinstance(model, LanguageModel)
        out = model(batch, plan)
        nats, tokens = (out.loss.double() * out.slot_weight).sum(), (batch.length - model.given).sum()
        return {"loss": ratio(nats, tokens), "bits": ratio(nats / math.log(2), tokens)}


class LanguageModelTask(Task):
    model: LanguageModel

    def measure(self) -> Measure:
        return LanguageModelMeasure(self)

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        out = self.model(batch, plan)
        nll = mean_token_loss(out, batch, self.model.given)
        return WindowLoss(nll, {"nll": nll.detach().float(), "token_prob": out.target_prob.float().mean()})
