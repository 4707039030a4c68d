"""Bytes that autograd keeps for backward, and what the greatest operations need beside them, on one rank.

What an operation keeps follows from its derivative: a product its other factor, a normalisation its input, softmax
attention queries, keys, values and outputs. Frozen weights need no inputs.
"""

# D width, I inner width of the MLP, V vocabulary, T tokens a sequence, N tokens of a forward, M slots, t tensor-parallel ranks

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualmask.config.schema import ModelConfig, RunConfig, StageConfig
from dualmask.planning.flops import Draws, Gradient, Shape, expected, gradients
from dualmask.planning.parameters import NEIGHBOURS, OPINIONS, padded

SINGLE = 4  # bytes of a float32
INDEX = 8  # bytes of an id or a place
FIGURES = 60  # float32 a token: decisions of picker, inserter and Gate, and their losses


@dataclass(frozen=True)
class Sizes:
    """Of one forward pass of one rank."""

    config: ModelConfig
    vocab_size: int
    sequences: int  # of a micro-batch
    tensor: int
    element: int  # bytes of a weight or an activation
    checkpointing: bool
    cpu: bool

    @property
    def split(self) -> float:
        """Width of a rank's part."""
        return self.config.hidden / self.tensor

    @property
    def inner(self) -> float:
        return self.config.ffn_multiple * self.split

    @property
    def logits(self) -> float:
        """Of a slot."""
        return padded(self.vocab_size) / self.tensor


@dataclass(frozen=True)
class Moment:
    """Of a step: what is kept for backward, and what is used besides."""

    activations: float
    workspace: float
    reducing: bool = False  # the first gradients of weights are there


def moments(run: RunConfig, stage: StageConfig, sizes: Sizes, draws: Sequence[Draws] | None = None) -> list[Moment]:
    """Those of a forward and backward pass that may be the greatest. ``draws``: of each round; None: expected ones."""
    shape = Shape(sizes.config, sizes.vocab_size, sizes.sequences, sizes.checkpointing)
    draws = expected(shape, stage) if draws is None else draws
    if sizes.config.family in ("autoregressive", "diffusion"):
        return _language_model(sizes, draws[0])
    if "picker" not in stage.train:
        return _random_holes(sizes, stage, draws[0])
    return _rounds(sizes, stage, draws)


def block(sizes: Sizes, tokens: float, gradient: Gradient, keys: float) -> float:
    """``keys``: entries of the attention mask, a float each (scaled_dot_product_attention makes them of booleans)."""
    if gradient == "none":
        return 0.0
    config, split, inner = sizes.config, sizes.split, sizes.inner
    both = 2 * config.hidden + 6 * split + inner  # inputs of the norms; q k v, rotated q and k, output; gelu's input
    if gradient == "learn":
        both += 2 * config.hidden + inner  # inputs of qkv, up and down
        both += split if sizes.cpu else 0  # and of the output product, which the CPU's attention lays out otherwise
    if sizes.element < SINGLE:
        both += 4 * config.hidden / config.heads / 2  # cosines and sines, rounded for queries and for keys
    sums = config.heads / sizes.tensor * SINGLE + 4 * sizes.element  # of softmax, a float32; two figures a norm
    return tokens * (both * sizes.element + sums) + keys * sizes.element


def trunk(sizes: Sizes, layers: int, rows: float, gradient: Gradient, *, causal: bool = False) -> float:
    """Over ``rows`` whole texts."""
    if gradient == "none":
        return 0.0
    length, width = sizes.config.max_length, sizes.config.hidden
    tokens = rows * length
    keys = tokens * length if causal else tokens
    each = tokens * width * sizes.element if sizes.checkpointing else block(sizes, tokens, gradient, keys)
    turns = tokens * width / sizes.config.heads * SINGLE  # cosines and sines
    norm = tokens * (width + 2) * sizes.element
    mixed = rows * (length + NEIGHBOURS - 1) * width * sizes.element if gradient == "learn" else 0.0
    return layers * each + turns + norm + mixed


def logits(sizes: Sizes, slots: float) -> float:
    """Logarithms of the softmax."""
    return slots * sizes.logits * SINGLE


def backward_of_logits(sizes: Sizes, slots: float) -> float:
    """Gradients of the logarithms, and of the logits."""
    return 2 * slots * sizes.logits * SINGLE


def backward_of_block(sizes: Sizes, tokens: float, gradient: Gradient, keys: float) -> float:
    """Of the first block that is gone back through: gradients of its output and of the MLP's inner states, and all that
    it keeps where it is checkpointed."""
    again = block(sizes, tokens, gradient, keys) - tokens * sizes.config.hidden * sizes.element
    return tokens * (sizes.config.hidden + sizes.inner) * sizes.element + (again if sizes.checkpointing else 0.0)


def head(sizes: Sizes, slots: float, gradient: Gradient) -> float:
    """Of the filler, logits included."""
    if gradient == "none":
        return 0.0
    wide = 2 * sizes.config.hidden + sizes.split if gradient == "learn" else 0.0  # inputs of up, down and the logits
    wide += sizes.config.hidden + sizes.split + 2  # of the norm and of gelu
    return slots * wide * sizes.element + logits(sizes, slots)


def _language_model(sizes: Sizes, draws: Draws) -> list[Moment]:
    config = sizes.config
    assert config.layers is not None
    tokens, causal = sizes.sequences * config.max_length, config.family == "autoregressive"
    keys = tokens * config.max_length if causal else tokens
    body = trunk(sizes, config.layers, sizes.sequences, "learn", causal=causal)
    said = draws.slots * config.hidden * sizes.element + logits(sizes, draws.slots)
    return [
        Moment(body + said, backward_of_logits(sizes, draws.slots)),
        Moment(body, backward_of_block(sizes, tokens, "learn", keys), True),
    ]


def _random_holes(sizes: Sizes, stage: StageConfig, draws: Draws) -> list[Moment]:
    counts = "inserter" in stage.train
    filling: Gradient = "learn" if "filler" in stage.train else "position" if counts else "none"
    if stage.losses.recon.start <= 0 and stage.losses.recon.end <= 0:
        filling = "none"
    rows = float(sizes.sequences)
    counted = _inserter(sizes, rows, "learn" if counts else "none")
    body, said = _filler(sizes, rows, filling), head(sizes, draws.slots, filling)
    tokens = rows * sizes.config.max_length
    last: Gradient = filling if filling != "none" else "learn"
    return [
        Moment(counted + body + said, backward_of_logits(sizes, draws.slots) if said else 0.0),
        Moment(counted + body, backward_of_block(sizes, tokens, last, tokens), True),
    ]


def _rounds(sizes: Sizes, stage: StageConfig, draws: Sequence[Draws]) -> list[Moment]:
    """The fullest window."""
    rows = float(sizes.sequences * stage.rollout.samples)
    width = min(stage.rollout.window, len(draws))
    window = draws[:width]
    rounds = [_round(sizes, stage, rows, here, window[n - 1] if n else None) for n, here in enumerate(window)]
    saved, last = sum(rounds), window[-1]
    filling, _ = gradients(stage, len(window) > 1)
    said, tokens = head(sizes, last.slots, filling), rows * sizes.config.max_length
    spoken = sum(here.slots for here in window) * sizes.logits * sizes.element  # their logits live until the loss
    before = spoken - last.slots * sizes.logits * sizes.element
    rounded = SINGLE if sizes.element < SINGLE else 0
    drawn = (
        last.masks * sizes.logits * (sizes.element + SINGLE + rounded)
    )  # those of masks, as float32, special ids refused
    found = [
        Moment(saved, backward_of_logits(sizes, last.slots) if said else 0.0),
        Moment(saved - said, backward_of_block(sizes, tokens, filling if said else "learn", tokens), True),
        Moment(saved, spoken + drawn),
    ]
    if sizes.config.picker_probes:
        found.append(Moment(sum(rounds[:-1]), before + _probes(sizes, rows)))
    return found


def _round(sizes: Sizes, stage: StageConfig, rows: float, draws: Draws, before: Draws | None) -> float:
    config, element = sizes.config, sizes.element
    tokens, width = rows * config.max_length, config.hidden
    filling, counting = gradients(stage, before is not None)
    soft = 0.0
    if before is not None and stage.soft_tokens:
        top = stage.rollout.top_k
        soft = before.masks * ((top + 1) * width * element + top * (INDEX + 3 * SINGLE))
    embedded = tokens * width * element if "filler" in stage.train or soft else 0.0  # where drafts are cut and masked
    revealed = tokens * width * element if stage.picker_gradient > 0 else 0.0
    picked = trunk(sizes, config.picker_layers, rows, "learn") + tokens * (width + OPINIONS) * element
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
    body = trunk(sizes, sizes.config.filler_layers, rows, gradient)
    if gradient == "position" and not sizes.checkpointing:  # it enters behind the first block's norm
        body -= rows * sizes.config.max_length * (sizes.config.hidden + 2) * sizes.element
    return body


def _inserter(sizes: Sizes, rows: float, gradient: Gradient) -> float:
    if gradient == "none":
        return 0.0
    config, gaps = sizes.config, rows * (sizes.config.max_length - 1)
    head = gaps * sizes.split * (2 if gradient == "learn" else 1)  # inputs of gelu and of the count
    head += rows * config.max_length * config.hidden if gradient == "learn" else 0.0
    counts = 4 * gaps * (config.max_gap_count + 1) * SINGLE  # probabilities: for places, for two losses
    return trunk(sizes, config.inserter_layers, rows, gradient) + head * sizes.element + counts


def _probes(sizes: Sizes, rows: float) -> float:
    """A pass of the filler without gradient over copies of the batch: its widest block, or all the logits."""
    config, probes = sizes.config, sizes.config.picker_probes
    tokens, asked = rows * config.max_length * probes, rows * (config.max_length - 2)
    walk = tokens * (3 * config.hidden + 2 * sizes.inner) * sizes.element
    rounded = SINGLE if sizes.element < SINGLE else 0
    said = asked * sizes.logits * (sizes.element + SINGLE + rounded)
    return max(walk, tokens * config.hidden * sizes.element + said)
