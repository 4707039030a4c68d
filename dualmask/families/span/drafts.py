"""Stage ``draft``: spans that the decoder itself would write, so that verified spans (``verified.py``) are accepted.

A draft is worth what the decoder accepts of it: its own next tokens, not those of the text. So the places of a span
learn the decoder's own greedy continuation (distillation, as in Zhou et al. 2024), in one step, without a gate.
"""

# B batch, T tokens, K places of a span, V vocabulary

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import EOS_ID
from dualmask.curriculum import StepPlan
from dualmask.families.span import spans
from dualmask.families.span.losses import GIVEN
from dualmask.families.span.model import REACH, SpanFusion
from dualmask.families.span.rollout import draw, span_length
from dualmask.families.span.spans import Spans
from dualmask.families.task import WindowLoss
from dualmask.nn.cache import PrefixCache
from dualmask.nn.parallel.vocabulary import cross_entropy
from dualmask.nn.token_losses import mean_token_loss


def draft_loss(model: SpanFusion, batch: Batch, plan: StepPlan) -> WindowLoss:
    """``ar`` of the whole texts, and of ``spans`` drafts behind each ``token`` (refined states) and ``pred`` (the
    decoder's own), nats a place. ``tokens_a_pass``: drafts that would be accepted and the token that is always
    certain."""
    settings = plan.stage.draft
    ar, prefix = model(batch)
    losses = {"ar": mean_token_loss(ar, batch, GIVEN)}
    accepted = []
    width = span_length(plan.step, settings.lengths)
    weight = settings.decay ** torch.arange(width, device=batch.tokens.device)
    for turn in range(settings.spans):
        number = plan.step * settings.spans + turn
        cut = spans.cut(batch, number, width)
        own = noise.uniform(batch.key, "own continuation", number) < settings.own
        target = torch.where(own[:, None], continuation(model, batch, cut, prefix), cut.target)
        behind = prefix.up_to(cut.prompt_length, REACH)
        look = model.look(model.begin(*target.shape), cut.position, behind)
        for name, logits in (("token", look.logits), ("pred", look.pred_logits)):
            nats = cross_entropy(logits, target.flatten()).view_as(target) * weight / weight.sum()
            losses[name] = losses.get(name, 0.0) + nats.sum(1).mean() / settings.spans
        same = draw(look.logits, model.vocab_size, GREEDY).view_as(target)[:, 1:] == target[:, 1:]
        accepted.append(1 + same.long().cumprod(1).sum(1).float().mean())
    total = sum((getattr(settings.losses, name) * loss for name, loss in losses.items()), torch.zeros(()))
    seen = {name: loss.detach().float() for name, loss in losses.items()}
    return WindowLoss(total, seen | {"tokens_a_pass": torch.stack(accepted).mean()})


@torch.no_grad()
def continuation(model: SpanFusion, batch: Batch, cut: Spans, prefix: PrefixCache) -> Tensor:
    """[B, K] the decoder's greedy continuation of each prompt; EOS behind its first EOS."""
    first = cut.prompt_length - 1  # the last token of the prompt, which says what comes first
    behind = prefix.up_to(first, REACH)
    tokens = batch.tokens.gather(1, first[:, None])
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    for _ in range(cut.target.shape[1]):
        position = spans.positions(first, tokens.shape[1])
        states = model.decoder(model.table(tokens), position, torch.ones_like(tokens, dtype=torch.bool), behind)
        new = draw(model.project(states[:, -1]), model.vocab_size, GREEDY)[:, None]
        new = torch.where(ended, EOS_ID, new)
        ended = new == EOS_ID
        tokens = torch.cat([tokens, new], 1)
    return tokens[:, 1:]
