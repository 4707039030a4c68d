"""The moments at which a rank that teaches SpanFusionLM may hold most: see ``families/span/rollout.py``."""

# D width, V vocabulary, T tokens a text, N tokens of all texts, K places of a span

from __future__ import annotations

from dualmask.config.stage import StageConfig
from dualmask.families.span.config import SpanModelConfig
from launcher.planner.activations import (
    SINGLE,
    Moment,
    Sizes,
    backward_of_block,
    beside_logits,
    block,
    language_model,
    logits,
    trunk,
)
from launcher.planner.flops import Gradient, span_gradients
from launcher.planner.parameters import NEIGHBOURS
from launcher.planner.sections import of


def span_moments(sizes: Sizes, stage: StageConfig) -> list[Moment]:
    """Of the longest span of the stage."""
    parts, config = of(sizes.config).span, sizes.config
    assert parts is not None
    slots = float(sizes.sequences * (config.max_length - 1))
    if of(stage).span is None:
        return language_model(sizes, parts.decoder_layers, slots, causal=True)
    reads: Gradient = "learn" if "decoder" in stage.train else "none"
    places = max(of(stage).span.lengths)
    tokens = float(sizes.sequences * config.max_length)
    text = trunk(sizes, parts.decoder_layers, sizes.sequences, reads, causal=True, remembers=True)
    said = 0.0 if reads == "none" else slots * config.hidden * sizes.element + logits(sizes, slots)
    recalled = tokens * config.hidden * sizes.element if reads == "learn" else 0.0  # embeddings, to take the last of
    steps = _steps(sizes, parts, stage, places)
    memory = parts.decoder_layers * tokens * 2 * sizes.split * sizes.element  # keys and values, kept by name
    kept_by_name = memory if sizes.checkpointing or reads == "none" else 0.0
    saved = text + said + recalled + steps
    spoken = slots * sizes.logits * sizes.element + _looks(sizes, parts, places, heard=reads != "none")
    return [
        Moment(text + said, kept_by_name, fetching=True),
        Moment(saved, kept_by_name + spoken + _teacher(sizes, parts, stage, places, memory)),
        Moment(text + said + recalled, kept_by_name + beside_logits(sizes, slots) if said else 0.0),
        Moment(text, kept_by_name + backward_of_block(sizes, tokens, "learn", tokens * config.max_length), True),
    ]


def _steps(sizes: Sizes, parts: SpanModelConfig, stage: StageConfig, places: int) -> float:
    """All refinement steps of a span, kept for backward."""
    assert of(stage).span is not None
    _, _, refines = span_gradients(stage)
    # what nothing hears is kept all the same, as long as the forward pass lasts
    heard: Gradient = "learn" if "decoder" in stage.train else "none"
    rows, width, element = float(sizes.sequences), sizes.config.hidden, sizes.element
    tokens, seen = rows * places, rows * (sizes.config.max_length + places)
    decoder = encoder = 0.0
    if heard != "none":
        each = tokens * width * element + tokens * (sizes.config.max_length + places)  # the mask, of booleans
        if not sizes.checkpointing:
            each = block(sizes, tokens, heard, tokens * (sizes.config.max_length + places), seen)
        decoder = parts.decoder_layers * each + tokens * (width + 2) * element
        decoder += rows * (places + NEIGHBOURS - 1) * width * element
    if refines != "none":
        each = tokens * width * element if sizes.checkpointing else _encoder_block(sizes, tokens, refines)
        encoder = parts.encoder_layers * each + tokens * (width + 2) * element
    figures = tokens * sizes.logits * SINGLE
    spoken = figures if heard != "none" or refines != "none" else 0.0  # cross entropy
    heads = 0.0
    if heard != "none":
        spoken += figures * (3 if of(stage).span.losses.pred else 2)  # the decoder's cross entropy, and its entropy
        heads = 2 * tokens * width * element  # states whose logits are asked for
    return parts.g_max * (decoder + encoder + spoken + heads)


def _encoder_block(sizes: Sizes, tokens: float, gradient: Gradient) -> float:
    """Self-attention, cross-attention and MLP: a block, and once more a norm, attention and its inputs."""
    config, split = sizes.config, sizes.split
    cross = config.hidden + 5 * split  # input of the norm; rotated q and k, output, k v
    if gradient == "learn":
        cross += config.hidden + (split if sizes.cpu else 0)
    if sizes.element < SINGLE:
        cross += 4 * config.hidden / config.heads / 2
    sums = config.heads / sizes.tensor * SINGLE + 2 * sizes.element
    return block(sizes, tokens, gradient, 0.0) + tokens * (cross * sizes.element + sums)


def _looks(sizes: Sizes, parts: SpanModelConfig, places: int, *, heard: bool) -> float:
    """Logits of every step that live until its losses are known: the encoder's, and the decoder's own where autograd
    does not keep these very ones."""
    own = 0 if heard and sizes.element == SINGLE else 1
    return parts.g_max * (1 + own) * sizes.sequences * places * sizes.logits * sizes.element


def _teacher(sizes: Sizes, parts: SpanModelConfig, stage: StageConfig, places: int, memory: float) -> float:
    """Its own steps, of which it keeps the logits, and the last step's keys and values; a copy that follows the model
    slowly has a memory of the texts, too. Entropies take two floats a logit."""
    assert of(stage).span is not None
    if of(stage).span.losses.latent == 0:
        return 0.0
    spoken = sizes.sequences * places * sizes.logits
    whole = memory * (sizes.config.max_length + places) / sizes.config.max_length
    kept = parts.g_max * 2 * spoken * sizes.element + whole + 2 * spoken * SINGLE
    return kept + (memory if of(stage).span.teacher == "ema" else 0.0)
