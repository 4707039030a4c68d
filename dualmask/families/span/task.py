"""What the stages of SpanFusionLM teach: the decoder as a language model, and whole spans."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.span.config import SpanStageConfig
from dualmask.families.span.drafts import draft_loss
from dualmask.families.span.losses import GIVEN, span_loss
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.outputs import SpanDraft
from dualmask.families.span.rollout import draft, rollout
from dualmask.families.task import Preview, Task, WindowLoss, lines_of
from dualmask.nn.token_losses import mean_token_loss


class DecoderTask(Task):
    model: SpanFusion

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        out = self.model.decoder_losses(batch)
        nll = mean_token_loss(out, batch, GIVEN)
        return WindowLoss(nll, {"nll": nll.detach().float(), "token_prob": out.target_prob.float().mean()})


class DraftTask(Task):
    model: SpanFusion

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        return draft_loss(self.model, batch, plan)


class SpanTask(Task):
    """A teacher of its own, where the stage wants one, follows the model slowly."""

    model: SpanFusion

    def __init__(self, model: SpanFusion, settings: SpanStageConfig) -> None:
        super().__init__(model)
        self.teacher: SpanFusion | None = None
        self.decay = settings.ema_decay
        if settings.teacher == "ema" and settings.losses.latent > 0:
            with next(model.parameters()).device:  # meta, where the trainer fills it as it fills the model
                self.teacher = SpanFusion(model.config, model.vocab_size)
            self.teacher.load_state_dict(model.state_dict())
            self.teacher.requires_grad_(False)

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        return span_loss(rollout(self.model, batch, plan, self.teacher), batch, plan)

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        spans = draft(self.model, batch, plan)
        return Preview([_span(batch, spans, row, tokenizer) for row in range(len(batch.length))])

    def follower(self) -> tuple[nn.Module, float] | None:
        return None if self.teacher is None else (self.teacher, self.decay)


def _span(batch: Batch, spans: SpanDraft, row: int, tokenizer: Tokenizer) -> str:
    """One span behind its prompt, up to the step behind which the gate stops: there the open positions are filled."""

    def text(ids: Tensor) -> str:
        return "".join(map(tokenizer.piece, ids.tolist()))

    prompt = batch.tokens[row, : int(spans.prompt_length[row])].tolist()
    lines = {"prompt": tokenizer.decode(prompt), "target": text(spans.target[row])}
    last = int(spans.stop[row])
    for step in range(last + 1):
        lines[f"{step + 1}, {spans.mean_entropy[row, step]:.2f} nats"] = text(spans.written[row, step])
    lines["end"] = text(spans.filled[row, last])
    return lines_of(lines)
