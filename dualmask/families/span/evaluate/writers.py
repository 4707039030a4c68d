"""All ways in which SpanFusionLM continues texts: its span steps, decided by the gate or fixed, and its own decoder."""

# K places of a span

from __future__ import annotations

from collections.abc import Sequence

from dualmask.core.sampling import SamplingParams
from dualmask.evaluation.continuation import SPEED_BASELINE
from dualmask.evaluation.writers import Continuation, Texts, Writer, WriterSettings
from dualmask.families.span import spans, verified
from dualmask.families.span.block import SpanBlock
from dualmask.families.span.generate import Gate, write
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.request import VERIFIED, parse_gate
from dualmask.families.span.request import most_steps as steps_of
from dualmask.inference import autoregressive
from dualmask.inference.loading import Loaded
from dualmask.nn.block import Block

NETWORK = "decoder"  # the submodule whose forwards are passes
BLOCKS = (Block, SpanBlock)
GATES: tuple[Gate, ...] = ("learned", "fast", "accurate")


def family_writers(loaded: Loaded[SpanFusion], settings: WriterSettings) -> list[Writer]:
    """The one that ``settings`` asks for. Raises ValueError for a gate that there is not."""
    gate = parse_gate(settings.gate)
    if gate == VERIFIED:
        return [_verified(loaded.model, settings.span, may_end=settings.may_end)]
    steps_of(gate, loaded.model.span.g_max)
    return [_gated(loaded.model, settings.span, gate, settings.gate, may_end=settings.may_end)]


def writers(model: SpanFusion, width: int) -> list[Writer]:
    """Every gate, every number of steps, and the decoder alone; ``width`` = K tokens at a time."""
    gated = [_gated(model, width, gate, str(gate)) for gate in GATES]
    fixed = [_gated(model, width, number, f"fixed:{number}") for number in range(1, most_steps(model, width) + 1)]
    return [*gated, *fixed, own_decoder(model), _verified(model, width)]


def most_steps(model: SpanFusion, width: int) -> int:
    """N: behind so many steps of M = ⌈K / g_max⌉ places each, all ``width`` = K are written."""
    return -(-width // spans.places_a_step(width, model.span.g_max))


def _gated(model: SpanFusion, width: int, gate: Gate, method: str, *, may_end: bool = False) -> Writer:
    def continue_texts(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        sampling = SamplingParams(temperature=temperature).with_seeds(seeds)
        least = 0 if may_end else tokens
        written = write(model, prompts, tokens=tokens, span=width, gate=gate, least=least, sampling=sampling)
        return [Continuation(one.ids, sum(trace.steps for trace in one.spans)) for one in written]

    return Writer(method, model, continue_texts, NETWORK, BLOCKS)


def _verified(model: SpanFusion, width: int, *, may_end: bool = False) -> Writer:
    """What ``own_decoder`` writes; a step a pass of the decoder."""

    def continue_texts(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        sampling = SamplingParams(temperature=temperature).with_seeds(seeds)
        least = 0 if may_end else tokens
        written = verified.write(model, prompts, tokens=tokens, span=width, least=least, sampling=sampling)
        return [Continuation(one.ids, len(one.spans)) for one in written]

    return Writer(VERIFIED, model, continue_texts, NETWORK, BLOCKS)


def own_decoder(model: SpanFusion) -> Writer:
    """The model's own decoder, used autoregressively: a step a token."""

    def continue_texts(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        sampling = SamplingParams(temperature=temperature).with_seeds(seeds)
        written = autoregressive.write(model, prompts, tokens=tokens, least=tokens, sampling=sampling)
        return [Continuation(ids, len(ids)) for ids in written]

    return Writer(SPEED_BASELINE, model, continue_texts, NETWORK, BLOCKS)
