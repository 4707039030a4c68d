"""Bytes that autograd keeps for backward, and what the greatest operations need beside them, on one rank.

What an operation keeps follows from its derivative: a product its other factor, a normalisation its input, softmax
attention queries, keys, values and outputs. Frozen weights need no inputs.
"""

# D width, V vocabulary, T tokens a sequence, N tokens of a forward, M slots

from __future__ import annotations

from dataclasses import dataclass

from dualmask.config.model import ModelConfig
from launcher.planner.flops import Gradient
from launcher.planner.parameters import NEIGHBOURS, padded

SINGLE = 4  # bytes of a float32
INDEX = 8  # bytes of an id or a place


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
    fetching: bool = False  # towards the end of the step's first forward pass


def block(sizes: Sizes, tokens: float, gradient: Gradient, keys: float, remembered: float = 0.0) -> float:
    """``keys``: entries of the attention mask, a float each (scaled_dot_product_attention makes them of booleans).

    ``remembered``: tokens whose keys and values stand in a memory (``layers.cache.Recall``), these ones included; they
    are copied into it. 0: there is none.
    """
    if gradient == "none":
        return 0.0
    config, split = sizes.config, sizes.split
    attention = 2 * split if remembered else 6 * split  # rotated q, output; without memory also q k v, and rotated k
    both = 2 * config.hidden + attention + sizes.inner  # and the inputs of the norms and of gelu
    if gradient == "learn":
        both += 2 * config.hidden + sizes.inner  # inputs of qkv, up and down
        both += split if sizes.cpu else 0  # and of the output product, which the CPU's attention lays out otherwise
    if sizes.element < SINGLE:
        both += 4 * config.hidden / config.heads / 2  # cosines and sines, rounded for queries and for keys
    sums = config.heads / sizes.tensor * SINGLE + 4 * sizes.element  # of softmax, a float32; two figures a norm
    return tokens * (both * sizes.element + sums) + (keys + remembered * 2 * split) * sizes.element


def trunk(
    sizes: Sizes, layers: int, rows: float, gradient: Gradient, *, causal: bool = False, remembers: bool = False
) -> float:
    """Over ``rows`` whole texts. ``remembers``: its keys and values will be looked back at."""
    if gradient == "none":
        return 0.0
    length, width = sizes.config.max_length, sizes.config.hidden
    tokens = rows * length
    keys = tokens * length if causal else tokens
    each = tokens * width * sizes.element
    if not sizes.checkpointing:
        each = block(sizes, tokens, gradient, keys, tokens if remembers else 0.0)
    turns = tokens * width / sizes.config.heads * SINGLE  # cosines and sines
    norm = tokens * (width + 2) * sizes.element
    mixed = rows * (length + NEIGHBOURS - 1) * width * sizes.element if gradient == "learn" else 0.0
    return layers * each + turns + norm + mixed


def logits(sizes: Sizes, slots: float) -> float:
    """Logarithms of the softmax."""
    return slots * sizes.logits * SINGLE


def beside_logits(sizes: Sizes, slots: float) -> float:
    """Going forward: the logits themselves, and as float32. The gradient is made in the memory of the logarithms."""
    rounded = SINGLE if sizes.element < SINGLE else 0
    return slots * sizes.logits * (sizes.element + rounded)


def backward_of_block(sizes: Sizes, tokens: float, gradient: Gradient, keys: float) -> float:
    """Of the first block that is gone back through: gradients of its output and of the MLP's inner states, and all that
    it keeps where it is checkpointed."""
    again = block(sizes, tokens, gradient, keys) - tokens * sizes.config.hidden * sizes.element
    return tokens * (sizes.config.hidden + sizes.inner) * sizes.element + (again if sizes.checkpointing else 0.0)


def language_model(sizes: Sizes, layers: int, slots: float, *, causal: bool) -> list[Moment]:
    """A trunk over whole texts and the logits of its states at the slots."""
    config = sizes.config
    tokens = sizes.sequences * config.max_length
    keys = tokens * config.max_length if causal else tokens
    body = trunk(sizes, layers, sizes.sequences, "learn", causal=causal)
    said = slots * config.hidden * sizes.element + logits(sizes, slots)
    return [
        Moment(body, 0.0, fetching=True),
        Moment(body + said, beside_logits(sizes, slots)),
        Moment(body, backward_of_block(sizes, tokens, "learn", keys), True),
    ]
