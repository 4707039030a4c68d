"""All refinement steps of a span, unrolled for training (seed 004, §3).

No text stops on the way: which step it stops at only chooses the one whose outputs count, so every rank calls every
module equally often, and what a stop would have been worth is known of each step.
"""

# B batch, K places of a span, D width, N = g_max steps, M slots, C candidates of a slot, V vocabulary

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.core.tokenizer import EOS_ID
from dualmask.curriculum import StepPlan
from dualmask.families.span import spans
from dualmask.families.span.config import SpanStageConfig
from dualmask.families.span.gate_net import CONTINUE
from dualmask.families.span.model import REACH, REFUSED, Look, SpanFusion, SpanState
from dualmask.families.span.outputs import SpanDraft, SpanOut
from dualmask.families.span.spans import Spans
from dualmask.nn.cache import PrefixCache
from dualmask.nn.parallel.vocabulary import cross_entropy, top_logits
from dualmask.nn.token_losses import ScoredSlots
from dualmask.ops.sampling import SamplingBatch, may_be_drawn

Write = Callable[[Look, int], Tensor]  # a step's look and its number → ids [B, K] to write where it writes


@dataclass(frozen=True)
class Step:
    look: Look
    before: SpanState
    pick: Tensor  # [B, K] bool: written in this step
    gate_logits: Tensor  # [B, 2]


def rollout(model: SpanFusion, batch: Batch, plan: StepPlan, teacher: SpanFusion | None = None) -> SpanOut:
    """Student and teacher on one span of each text. ``teacher`` None: the same weights.

    The gradient of a span goes through the prompt's keys and values, which the pass over the whole text made anyway.
    """
    settings = plan.stage.span
    ar, prefix = model(batch)
    cut = spans.cut(batch, plan.step, span_length(plan.step, settings.lengths))
    forced = noise.uniform(batch.key, "gold writes", plan.step) < settings.teacher_forcing
    write = _student(model, cut, forced, batch.key, plan)
    steps = play(model, prefix.up_to(cut.prompt_length, REACH), cut.position, write, settings, batch.key, plan.step)
    out = describe(steps, cut, forced, ar, batch.key, plan)
    if settings.losses.latent == 0:
        return out
    with torch.no_grad():
        if teacher is not None:
            prefix = _prefix_cache(teacher, batch)
        teaching = teacher or model
        greedy = play(teaching, prefix.up_to(cut.prompt_length, REACH), cut.position, _likeliest(teaching), settings)
        return out.with_teacher(_at(greedy, _stops(_certain(greedy))))


@torch.no_grad()
def draft(model: SpanFusion, batch: Batch, plan: StepPlan) -> SpanDraft:
    """The spans of ``rollout``, their likeliest tokens, the likelier decisions of the gate: nothing is drawn."""
    settings = plan.stage.span
    cut = spans.cut(batch, plan.step, span_length(plan.step, settings.lengths))
    write = _likeliest(model)
    steps = play(model, _prefix_cache(model, batch).up_to(cut.prompt_length, REACH), cut.position, write, settings)
    best = torch.stack([write(step.look, turn) for turn, step in enumerate(steps)], 1)
    before, open_, pick = (
        torch.stack(part, 1)
        for part in zip(*((step.before.tokens, step.before.open, step.pick) for step in steps), strict=True)
    )
    return SpanDraft(
        prompt_length=cut.prompt_length,
        target=cut.target,
        written=torch.where(pick, best, before),
        filled=torch.where(open_, best, before),
        mean_entropy=torch.stack([step.look.mean_entropy for step in steps], 1),
        stop=_stops(_certain(steps)),
    )


def span_length(step: int, lengths: Sequence[int]) -> int:
    """K of this step, the same on every rank."""
    return lengths[zlib.crc32(f"span {step}".encode()) % len(lengths)]


def play(
    model: SpanFusion,
    prefix: PrefixCache,
    position: Tensor,
    write: Write,
    settings: SpanStageConfig,
    key: Tensor | None = None,
    counter: int = 0,
) -> list[Step]:
    """The g_max steps of a span at ``position`` [B, K]. ``key`` [B]: the GateNet drops units as a student does."""
    state, steps = model.begin(*position.shape), []
    number = spans.places_a_step(position.shape[1], model.span.g_max)
    for turn in range(model.span.g_max):
        look = model.look(state, position, prefix, detach=settings.detach_pred)
        pick = model.next_places(look, state, number)
        read = look.mean_entropy.detach() if settings.detach_entropy else look.mean_entropy
        steps.append(Step(look, state, pick, model.gate(read, key, counter * model.span.g_max + turn)))
        state = SpanState(torch.where(pick, write(look, turn), state.tokens), state.open & ~pick, look.z)
    return steps


def describe(
    steps: list[Step], cut: Spans, forced: Tensor, ar: ScoredSlots, key: Tensor, plan: StepPlan
) -> SpanOut:  # fmt: skip
    """What the losses need of a student's steps."""
    settings = plan.stage.span
    target = cut.target.flatten()

    def nats(logits: Tensor) -> Tensor:
        return cross_entropy(logits, target).view_as(cut.target)

    gate_logits = torch.stack([step.gate_logits for step in steps], 1)
    go_on = gate_logits.softmax(-1)[..., CONTINUE]
    if settings.gate_estimator == "gumbel":
        gumbel = noise.gumbel(key, "gate", plan.step, *gate_logits.shape[1:])
        go_on = spans.drawn_continue(gate_logits, gumbel, settings.gate_temperature)
    go_on = go_on * _unfinished(steps)
    stop = _stops(go_on)
    return SpanOut(
        ar=ar,
        target=cut.target,
        nats=torch.stack([nats(step.look.logits) for step in steps], 1),
        pred_nats=torch.stack([nats(step.look.pred_logits) for step in steps], 1) if settings.losses.pred else None,
        open=torch.stack([step.before.open for step in steps], 1),
        pick=torch.stack([step.pick for step in steps], 1),
        forced=forced,
        go_on=go_on,
        gate_logits=gate_logits,
        mean_entropy=torch.stack([step.look.mean_entropy for step in steps], 1).detach(),
        stop=stop,
        z=_at(steps, stop),
    )


def draw(
    logits: Tensor,
    vocab_size: int,
    params: SamplingParams,
    *,
    gumbel: Callable[[Tensor], Tensor] | None = None,
    top_k: int = 1,
) -> Tensor:
    """[M] ids from logits [M, V / tensor], never [MASK] or [PRED]: the likeliest one, or with ``gumbel`` (noise for
    candidates [M, C]) and a temperature above 0 a draw from the ``top_k`` likeliest that the truncation rules allow.
    """
    greedy = gumbel is None or params.temperature == 0
    value, token = top_logits(logits, 1 if greedy else top_k, range(EOS_ID, vocab_size), refused=REFUSED)
    if gumbel is None or greedy:
        return token.squeeze(-1)
    score = value / params.temperature
    slots = torch.zeros(len(score), dtype=torch.long, device=score.device)  # all are of the one request
    kept = may_be_drawn(score.softmax(-1), SamplingBatch.of([params], score.device).rows(slots))
    score = (score + gumbel(token)).masked_fill(~kept, float("-inf"))
    return token.gather(-1, score.argmax(-1, keepdim=True)).squeeze(-1)


def _student(model: SpanFusion, cut: Spans, forced: Tensor, key: Tensor, plan: StepPlan) -> Write:
    """Draws tokens as the stage says; texts that are ``forced`` [B] get the true ones."""
    settings = plan.stage.span
    params = SamplingParams(temperature=settings.temperature, top_p=settings.top_p)
    column = torch.arange(cut.target.shape[1], device=key.device)
    slot_key = noise.mix(key[:, None] + column).flatten()

    @torch.no_grad()
    def write(look: Look, turn: int) -> Tensor:
        def gumbel(token: Tensor) -> Tensor:
            return noise.gumbel_at(slot_key, "span", plan.step * model.span.g_max + turn, token)

        drawn = draw(look.logits, model.vocab_size, params, gumbel=gumbel, top_k=settings.top_k)
        return torch.where(forced[:, None], cut.target, drawn.view_as(cut.target))

    return write


def _prefix_cache(model: SpanFusion, batch: Batch) -> PrefixCache:
    """What the decoder remembers of each text."""
    prefix = PrefixCache.empty(model.depth)
    model.read(batch, prefix)
    return prefix.appended()


def _likeliest(model: SpanFusion) -> Write:
    def write(look: Look, turn: int) -> Tensor:
        token = draw(look.logits, model.vocab_size, GREEDY)
        return token.view_as(look.entropy)

    return write


def _certain(steps: list[Step]) -> Tensor:
    """[B, N] the likelier decision of each step: 1 to go on."""
    return torch.stack([step.gate_logits for step in steps], 1).argmax(-1).float() * _unfinished(steps)


def _unfinished(steps: list[Step]) -> Tensor:
    """[B, N] bool: some place is open behind the step. Where K is no multiple of g_max all may be written early."""
    return torch.stack([(step.before.open & ~step.pick).any(1) for step in steps], 1)


def _stops(go_on: Tensor) -> Tensor:
    """[B] index of the step behind which each text stops, from ``go_on`` [B, N]: above ½ it goes on."""
    on = (go_on.detach() > 0.5).long()
    return on[:, :-1].cumprod(1).sum(1)


def _at(steps: list[Step], stop: Tensor) -> Tensor:
    """[B, K, D] each text's states at its own last step."""
    states = torch.stack([step.look.z for step in steps], 1)
    return states[torch.arange(len(stop), device=stop.device), stop]
