"""Floating-point operations of a training step: all matrix products, forward and backward, of one global batch.

What depends on the data enters by ``Draws``; ``expected`` says what to assume of them. A multiplication and an addition
count as two; attention counts every pair of places that is computed, masked or not.
"""

# D width, V vocabulary, T tokens a sequence, K places of a span

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dualmask.config.model import ModelConfig
from dualmask.config.schedule import Schedule
from dualmask.config.stage import StageConfig
from launcher.planner.parameters import OPINIONS, PICKER_OUTPUTS, RATE_FEATURES, STATISTICS, padded
from launcher.planner.sections import of

# learn: gradients of weights and inputs; through: of inputs only; position: of rotary positions only; none: no gradient
Gradient = Literal["learn", "through", "position", "none"]


@dataclass(frozen=True)
class Cost:
    forward: float = 0.0
    backward: float = 0.0
    again: float = 0.0  # forward, once more for backward: activation checkpointing

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward, self.again + other.again)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forward * times, self.backward * times, self.again * times)

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.again


@dataclass(frozen=True)
class Shape:
    """What a step is made of."""

    config: ModelConfig
    vocab_size: int
    sequences: int  # of the global batch
    checkpointing: bool = False


@dataclass(frozen=True)
class Draws:
    """What one round's data decide, over the global batch."""

    slots: float  # places whose tokens the filler is asked for
    masks: float  # of them, holes
    compared: float = 0.0  # texts on which the Gate's other decision is tried as well


def step_cost(shape: Shape, stage: StageConfig, draws: Sequence[Draws] | None = None) -> Cost:
    """Of an optimizer step at the end of the stage. ``draws``: of each round; None: ``expected``.

    Raises ValueError for stage `reward`, which is not planned.
    """
    if of(stage).reward is not None:
        raise ValueError(f"stage {stage.name} is not planned: its rollouts are made by a second model")
    draws = expected(shape, stage) if draws is None else draws
    family = shape.config.family
    if family in ("autoregressive", "diffusion"):
        return _language_model(shape, draws[0])
    if family == "spanfusion":
        return _span(shape, stage)
    if "picker" not in stage.train:
        return _random_holes(shape, stage, draws[0])
    first = set(range(0, len(draws), of(stage).rollout.window))
    rounds = [
        _round(shape, stage, here, None if number in first else draws[number - 1]) for number, here in enumerate(draws)
    ]
    return sum(rounds, Cost())


def expected(shape: Shape, stage: StageConfig) -> list[Draws]:
    """For full-length sequences, schedules at their mean, and every later round as full of holes as the first."""
    config, how = shape.config, of(stage).rollout
    inner, rows = config.max_length - 2, shape.sequences
    if config.family != "dualmask":
        slots = rows * ((inner + 1) / 2 if config.family == "diffusion" else inner + 1)
        return [Draws(slots, slots)]
    kept = (mean(of(stage).deletion.keep_rate_low) + mean(of(stage).deletion.keep_rate_high)) / 2
    holes = {"rewrite": (1 - kept) * inner, "skeleton": (1 - kept) * inner}
    holes |= dict.fromkeys(("prefix", "empty"), min(of(config).max_gap_count, inner))  # one gap takes no more a round
    holes["corrupted"] = (how.corruption.rate_low + how.corruption.rate_high) / 2 * inner
    picks = of(stage).plays_rounds
    shares = {str(kind): share for kind, share in how.starts.items()} if picks else {"skeleton": 1.0}
    masks = sum(share * holes.get(kind, 0.0) for kind, share in shares.items()) / sum(shares.values())
    copies = rows * (how.samples if picks else 1)
    slots = copies * (inner if of(stage).losses.kept_weight > 0 else masks)
    free = 1 - shares.get("rewrite", 0.0) / sum(shares.values())
    compared = max(1.0, copies * free * how.gate_rows) if _compares(stage) else 0.0
    return [Draws(slots, copies * masks, compared)] * (how.rounds if picks else 1)


def mean(schedule: Schedule) -> float:
    return (schedule.start + schedule.end) / 2


def linear(tokens: float, d_in: int, d_out: int, gradient: Gradient = "learn") -> Cost:
    forward = 2.0 * tokens * d_in * d_out
    return Cost(forward, forward * {"learn": 2, "through": 1, "position": 1, "none": 0}[gradient])


def attention(pairs: float, width: int, gradient: Gradient = "learn") -> Cost:
    """``pairs``: of a query and a key, over all sequences."""
    forward = 4.0 * pairs * width
    return Cost(forward, 0.0 if gradient == "none" else 2 * forward)


def _block(config: ModelConfig, tokens: float, pairs: float, gradient: Gradient) -> Cost:
    width, inner = config.hidden, config.ffn_multiple * config.hidden
    return (
        linear(tokens, width, 3 * width, gradient)
        + attention(pairs, width, gradient)
        + linear(tokens, width, width, gradient)
        + linear(tokens, width, inner, gradient)
        + linear(tokens, inner, width, gradient)
    )


def _checkpointed(shape: Shape, cost: Cost) -> Cost:
    return Cost(cost.forward, cost.backward, cost.forward if shape.checkpointing and cost.backward else 0.0)


def _trunk(shape: Shape, layers: int, tokens: float, pairs: float, gradient: Gradient) -> Cost:
    config = shape.config
    cost = _block(config, tokens, pairs, gradient) * layers
    if gradient == "position":  # it enters behind the first block's inputs and past its values
        unasked = linear(tokens, config.hidden, 3 * config.hidden).forward + 2 * pairs * config.hidden
        cost = Cost(cost.forward, cost.backward - unasked)
    return _checkpointed(shape, cost)


def _texts(shape: Shape, layers: int, rows: float, gradient: Gradient) -> Cost:
    """A trunk over ``rows`` whole texts."""
    length = shape.config.max_length
    return _trunk(shape, layers, rows * length, rows * length**2, gradient)


def _logits(shape: Shape, slots: float, gradient: Gradient) -> Cost:
    return linear(slots, shape.config.hidden, padded(shape.vocab_size), gradient)


def _language_model(shape: Shape, draws: Draws) -> Cost:
    assert of(shape.config).layers is not None
    return _texts(shape, of(shape.config).layers, shape.sequences, "learn") + _logits(shape, draws.slots, "learn")


def _filler(shape: Shape, rows: float, slots: float, gradient: Gradient) -> Cost:
    width = shape.config.hidden
    head = linear(slots, width, width, gradient) * 2 + _logits(shape, slots, gradient)
    return _texts(shape, of(shape.config).filler_layers, rows, gradient) + head


def _inserter(shape: Shape, rows: float, gradient: Gradient) -> Cost:
    config, gaps = shape.config, rows * (shape.config.max_length - 1)
    head = linear(gaps, config.hidden, config.hidden, gradient) * 2
    head += linear(gaps, config.hidden, of(config).max_gap_count + 1, gradient)
    return _texts(shape, of(config).inserter_layers, rows, gradient) + head


def _picker(shape: Shape, rows: float) -> Cost:
    config, tokens = shape.config, rows * shape.config.max_length
    small = linear(rows, RATE_FEATURES, config.hidden, "through")  # their inputs carry no gradient
    small += linear(tokens, OPINIONS, config.hidden, "through")
    return (
        _texts(shape, of(config).picker_layers, rows, "learn") + small + linear(tokens, config.hidden, PICKER_OUTPUTS)
    )


def _gate(shape: Shape, rows: float, gradient: Gradient) -> Cost:
    width = shape.config.hidden
    statistics = linear(rows, STATISTICS, width, "through" if gradient == "learn" else "none")
    return linear(rows, width, width, gradient) + statistics + linear(rows, width, 1, gradient)


def _random_holes(shape: Shape, stage: StageConfig, draws: Draws) -> Cost:
    """A round in which nobody picks."""
    cost = Cost()
    if "inserter" in stage.train:
        cost += _inserter(shape, shape.sequences, "learn")
    if mean(of(stage).losses.recon) > 0:
        cost += _filler(shape, shape.sequences, draws.slots, filling_alone(stage))
    return cost


def filling_alone(stage: StageConfig) -> Gradient:
    """Of the filler in a stage in which nobody picks."""
    return "learn" if "filler" in stage.train else "position" if "inserter" in stage.train else "none"


def _round(shape: Shape, stage: StageConfig, draws: Draws, before: Draws | None) -> Cost:
    """``before``: the round whose tokens carry a gradient into this one; None at the head of a window."""
    how, rows = of(stage).rollout, float(shape.sequences * of(stage).rollout.samples)
    filling, counting = gradients(stage, before is not None)
    softened = of(stage).soft_tokens and before is not None and filling != "none"
    cost = (
        _probes(shape, rows) + _picker(shape, rows) + _gate(shape, rows, "learn" if "gate" in stage.train else "none")
    )
    cost += _inserter(shape, rows, counting) + _filler(shape, rows, draws.slots, filling)
    if of(stage).soft_tokens and before is not None:
        cost += linear(before.masks, how.top_k, shape.config.hidden, "through" if softened else "none")
    if draws.compared:
        other = draws.slots / rows * draws.compared
        cost += _inserter(shape, draws.compared, "none") + _filler(shape, draws.compared, other, "none")
    return cost


def gradients(stage: StageConfig, follows: bool) -> tuple[Gradient, Gradient]:
    """Of filler and inserter in a round. ``follows``: another round of the window handed its tokens on to it."""
    fills, counts = "filler" in stage.train, "inserter" in stage.train
    positions = counts and of(stage).rollout.count_estimator == "straight_through"
    frozen: Gradient = "through" if of(stage).picker_gradient > 0 else "position" if positions else "none"
    filling: Gradient = "learn" if fills else frozen
    softened = of(stage).soft_tokens and follows and filling != "none"
    if softened and not fills:
        filling = "through"
    counting: Gradient = "learn" if counts else "through" if fills or softened else "none"
    return filling, counting


def _probes(shape: Shape, rows: float) -> Cost:
    """What the filler thinks of every token, for the picker."""
    probes = of(shape.config).picker_probes
    if not probes:
        return Cost()
    return _filler(shape, rows * probes, rows * (shape.config.max_length - 2), "none")


def _compares(stage: StageConfig) -> bool:
    return of(stage).gate_decides and of(stage).rollout.gate_rows > 0


def _span(shape: Shape, stage: StageConfig) -> Cost:
    """The decoder over whole texts, and the steps of one span a text, of each length alike."""
    parts, rows = of(shape.config).span, shape.sequences
    assert parts is not None
    reads: Gradient = "learn" if "decoder" in stage.train else "none"
    cost = _texts(shape, parts.decoder_layers, rows, reads)
    cost += _logits(shape, rows * (shape.config.max_length - 1), reads)
    how = of(stage).span
    if how is None:
        return cost
    heard, said, refines = span_gradients(stage)
    teaches = how.losses.latent > 0
    for places in how.lengths:
        steps = _steps(shape, places, heard, said, refines, reads)
        steps += _steps(shape, places, "none", "none", "none", "none") * teaches
        cost += steps * (parts.g_max / len(how.lengths))
    if teaches and how.teacher == "ema":
        cost += _texts(shape, parts.decoder_layers, rows, "none")
    return cost


def span_gradients(stage: StageConfig) -> tuple[Gradient, Gradient, Gradient]:
    """In a refinement step: of the decoder, of its own logits, and of the encoder."""
    how = of(stage).span
    assert how is not None
    reads: Gradient = "learn" if "decoder" in stage.train else "none"
    said = how.losses.pred > 0 or not how.detach_entropy  # something hears the decoder's logits
    heard: Gradient = reads if said or not how.detach_pred else "none"
    refines: Gradient = "learn" if "encoder" in stage.train else "none" if how.detach_pred else "through"
    return heard, reads if said else "none", refines


def _steps(
    shape: Shape, places: int, heard: Gradient, said: Gradient, refines: Gradient, projects: Gradient
) -> Cost:  # fmt: skip
    """One refinement step: decoder behind its memory of the text, encoder, both logits. The GateNet is left out."""
    config, parts = shape.config, of(shape.config).span
    assert parts is not None
    tokens, width = float(shape.sequences * places), config.hidden
    cost = _trunk(shape, parts.decoder_layers, tokens, tokens * (config.max_length + places), heard)
    cross = linear(tokens, width, width, refines) * 2 + linear(tokens, width, 2 * width, refines)
    pairs = tokens * places
    block = _block(config, tokens, pairs, refines) + cross + attention(pairs, width, refines)
    if refines != "none" and projects == "none":
        projects = "through"  # to the encoder, past a frozen table
    return (
        cost
        + _checkpointed(shape, block * parts.encoder_layers)
        + _logits(shape, tokens, said)
        + _logits(shape, tokens, projects)
    )
