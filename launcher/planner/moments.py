"""The moments of a forward and backward pass at which a rank may hold most, family by family."""

# D width, V vocabulary, T tokens a sequence, N tokens of a forward, M slots

from __future__ import annotations

from collections.abc import Sequence

from dualmask.config.stage import StageConfig
from launcher.planner.activations import (
    INDEX,
    SINGLE,
    Moment,
    Sizes,
    backward_of_block,
    beside_logits,
    language_model,
    logits,
    trunk,
)
from launcher.planner.flops import Draws, Gradient, Shape, expected, filling_alone, gradients, mean
from launcher.planner.parameters import OPINIONS
from launcher.planner.sections import of
from launcher.planner.span_moments import span_moments

FIGURES = 60  # float32 a token: decisions of picker, inserter and Gate, and their losses


def moments(stage: StageConfig, sizes: Sizes, draws: Sequence[Draws] | None = None) -> list[Moment]:
    """Those of a forward and backward pass that may be the greatest. ``draws``: of each round; None: expected ones."""
    shape = Shape(sizes.config, sizes.vocab_size, sizes.sequences, sizes.checkpointing)
    draws = expected(shape, stage) if draws is None else draws
    if sizes.config.family == "spanfusion":
        return span_moments(sizes, stage)
    if sizes.config.family in ("autoregressive", "diffusion"):
        return language_model(
            sizes, of(sizes.config).layers or 0, draws[0].slots, causal=sizes.config.family == "autoregressive"
        )
    if "picker" not in stage.train:
        return _random_holes(sizes, stage, draws[0])
    return _rounds(sizes, stage, draws)


def head(sizes: Sizes, slots: float, gradient: Gradient) -> float:
    """Of the filler, logits included."""
    if gradient == "none":
        return 0.0
    wide = 2 * sizes.config.hidden + sizes.split if gradient == "learn" else 0.0  # inputs of up, down and the logits
    wide += sizes.config.hidden + sizes.split + 2  # of the norm and of gelu
    return slots * wide * sizes.element + logits(sizes, slots)


def _random_holes(sizes: Sizes, stage: StageConfig, draws: Draws) -> list[Moment]:
    filling = filling_alone(stage) if mean(of(stage).losses.recon) > 0 else "none"
    rows, tokens = float(sizes.sequences), float(sizes.sequences * sizes.config.max_length)
    counted = _inserter(sizes, rows, "learn" if "inserter" in stage.train else "none")
    body, said = _filler(sizes, rows, filling), head(sizes, draws.slots, filling)
    found = [Moment(counted + body, 0.0, fetching=True)]
    found.append(Moment(counted + body + said, beside_logits(sizes, draws.slots) if said else 0.0))
    return found + _way_back(sizes, counted, body, filling, tokens)


def _way_back(sizes: Sizes, others: float, body: float, filling: Gradient, tokens: float) -> list[Moment]:
    """First through the filler, which keeps ``body``. While it is frozen, no gradient of a weight is there yet."""
    found = []
    if body:
        through = backward_of_block(sizes, tokens, filling, tokens)
        found.append(Moment(others + body, through, reducing=filling == "learn"))
    if filling != "learn":
        found.append(Moment(others, backward_of_block(sizes, tokens, "learn", tokens), reducing=True))
    return found


def _rounds(sizes: Sizes, stage: StageConfig, draws: Sequence[Draws]) -> list[Moment]:
    """Of all windows."""
    width = of(stage).rollout.window
    return [
        moment
        for first in range(0, len(draws), width)
        for moment in _window(sizes, stage, draws[first : first + width])
    ]


def _window(sizes: Sizes, stage: StageConfig, window: Sequence[Draws]) -> list[Moment]:
    rows = float(sizes.sequences * of(stage).rollout.samples)
    rounds = [_round(sizes, stage, rows, here, window[n - 1] if n else None) for n, here in enumerate(window)]
    saved, last = sum(rounds), window[-1]
    filling, _ = gradients(stage, len(window) > 1)
    said, tokens = head(sizes, last.slots, filling), rows * sizes.config.max_length
    spoken = sum(here.slots for here in window) * sizes.logits * sizes.element  # their logits live until the loss
    before = spoken - last.slots * sizes.logits * sizes.element
    rounded = SINGLE if sizes.element < SINGLE else 0
    # those of masks once more, as float32, and without special ids
    drawn = last.masks * sizes.logits * (sizes.element + SINGLE + rounded)
    found = [
        Moment(rounds[0] - head(sizes, window[0].slots, filling), 0.0, fetching=True),
        Moment(saved, beside_logits(sizes, last.slots) if said else 0.0),
        Moment(saved, spoken + drawn),
    ]
    body = _filler(sizes, rows, filling)
    found += _way_back(sizes, saved - said - body, body, filling, tokens)
    if of(sizes.config).picker_probes:
        found.append(Moment(sum(rounds[:-1]), before + _probes(sizes, rows)))
    return found


def _round(sizes: Sizes, stage: StageConfig, rows: float, draws: Draws, before: Draws | None) -> float:
    config, element = sizes.config, sizes.element
    tokens, width = rows * config.max_length, config.hidden
    filling, counting = gradients(stage, before is not None)
    soft = 0.0
    if before is not None and of(stage).soft_tokens:
        top = of(stage).rollout.top_k
        soft = before.masks * ((top + 1) * width * element + top * (INDEX + 3 * SINGLE))
    embedded = tokens * width * element if "filler" in stage.train or soft else 0.0  # where drafts are cut and masked
    revealed = tokens * width * element if of(stage).picker_gradient > 0 else 0.0
    picked = trunk(sizes, of(config).picker_layers, rows, "learn") + tokens * (width + OPINIONS) * element
    return (
        soft
        + embedded
        + revealed
        + picked
        + _inserter(sizes, rows, counting)
        + _filler(sizes, rows, filling)
        + head(sizes, draws.slots, filling)
        + tokens * FIGURES * SINGLE
    )


def _filler(sizes: Sizes, rows: float, gradient: Gradient) -> float:
    body = trunk(sizes, of(sizes.config).filler_layers, rows, gradient)
    if gradient == "position" and not sizes.checkpointing:  # it enters behind the first block's norm
        body -= rows * sizes.config.max_length * (sizes.config.hidden + 2) * sizes.element
    return body


def _inserter(sizes: Sizes, rows: float, gradient: Gradient) -> float:
    if gradient == "none":
        return 0.0
    config, gaps = sizes.config, rows * (sizes.config.max_length - 1)
    head = gaps * sizes.split * (2 if gradient == "learn" else 1)  # inputs of gelu and of the count
    head += rows * config.max_length * config.hidden if gradient == "learn" else 0.0
    counts = 4 * gaps * (of(config).max_gap_count + 1) * SINGLE  # probabilities: for places, for two losses
    return trunk(sizes, of(config).inserter_layers, rows, gradient) + head * sizes.element + counts


def _probes(sizes: Sizes, rows: float) -> float:
    """A pass of the filler without gradient over copies of the batch: its widest block, or all the logits."""
    config, probes = sizes.config, of(sizes.config).picker_probes
    tokens, asked = rows * config.max_length * probes, rows * (config.max_length - 2)
    walk = tokens * (3 * config.hidden + 2 * sizes.inner) * sizes.element
    rounded = SINGLE if sizes.element < SINGLE else 0
    said = asked * sizes.logits * (sizes.element + SINGLE + rounded)
    return max(walk, tokens * config.hidden * sizes.element + said)
