"""Bytes that autograd keeps for backward, and what the greatest operations need beside them, on one rank.

What an operation keeps follows from its derivative: a product its other factor, a normalisation its input, softmax
attention queries, keys, values and outputs. Frozen weights need no inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dualmask.config.model import ModelConfig
from dualmask.families.edit.config import EditConfig
from launcher.planner.parameters import SINGLE, Matrices, matrices, parameters
from launcher.planner.passes import Pass

INDEX = 8  # bytes of an id or a position
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
    sequence: bool = False  # tensor-parallel ranks share the tokens between split layers

    @cached_property
    def matrices(self) -> dict[str, Matrices]:
        return matrices(self.config, self.vocab_size)

    @cached_property
    def mixed(self) -> int:
        """Neighbouring tokens that a trunk mixes before its blocks."""
        every = parameters(self.config, self.vocab_size)
        return next(p.shape[0] for p in every if p.owner.endswith("neighbours"))

    @property
    def split(self) -> float:
        """Width of a rank's part."""
        return self.config.hidden / self.tensor

    @property
    def shared(self) -> float:
        """Width of a rank's part of what stands between split layers, for each token of all ranks."""
        return self.split if self.sequence else float(self.config.hidden)

    @property
    def inner(self) -> float:
        return self.config.ffn_multiple * self.split

    @cached_property
    def logits(self) -> float:
        """Of a slot."""
        return self.matrices["logits"].head[0].shape[0] / self.tensor

    @property
    def rounded(self) -> int:
        """Bytes of a figure's copy as float32, where there is one."""
        return SINGLE if self.element < SINGLE else 0


def kept(sizes: Sizes, one: Pass) -> float:
    """By a whole pass; those of the second model, the teacher, keep nothing."""
    if one.module == "mix":  # candidates' embeddings and their mean; ids, weights and noise of each
        wide = (one.slots + 1) * sizes.config.hidden * sizes.element
        return one.tokens * (wide + one.slots * (INDEX + 3 * SINGLE))
    if one.gradient == "none" or one.module in ("lookup", "gate"):
        return 0.0
    return trunk(sizes, one) + head(sizes, one)


def head(sizes: Sizes, one: Pass) -> float:
    """What a pass keeps behind its trunk."""
    if one.gradient == "none":
        return 0.0
    width, split, learns = sizes.config.hidden, sizes.split, one.gradient == "learn"
    if one.module == "logits":  # their input, and logarithms of the softmax
        return one.tokens * (width * sizes.element * learns + sizes.logits * SINGLE)
    if one.module == "filler":  # inputs of the norm and of gelu, of up and down; of hints and doubts, and these twice
        told = one.tokens * (2 * width * learns * sizes.element + 2 * SINGLE) + _pieces(sizes, one, one.tokens)
        return one.slots * (width + split + 2 + (width + split) * learns) * sizes.element + told
    if (
        one.module == "inserter"
    ):  # inputs of gelu and of the count, of left and right; probabilities, for two losses too
        assert isinstance(sizes.config, EditConfig)
        counts = 4 * one.slots * (sizes.config.max_gap_count + 1) * SINGLE
        read = (one.slots * split * (1 + learns) + one.tokens * width * learns) * sizes.element
        return read + counts + _pieces(sizes, one, one.slots)
    if one.module == "picker":
        scores = next(p.shape[1] for p in sizes.matrices["picker"].head if p.owner == "picker.opinion")
        return one.tokens * ((width + scores) * sizes.element + FIGURES * SINGLE)
    return 0.0


def _pieces(sizes: Sizes, one: Pass, places: float) -> float:
    """The embeddings of what was deleted from each gap, and which of them are known."""
    if not one.told or one.gradient != "learn":
        return 0.0
    assert isinstance(sizes.config, EditConfig)
    return places * sizes.config.told_pieces * sizes.config.hidden * sizes.element


def trunk(sizes: Sizes, one: Pass, *, cached: bool = False) -> float:
    """The blocks of a pass and what stands around them. ``cached``: its keys and values are appended to a cache."""
    if one.gradient == "none" or one.module == "logits":
        return 0.0
    tokens, width, element = one.tokens, sizes.config.hidden, sizes.element
    continues = one.module == "decoder" and one.reach > sizes.config.max_length  # behind the cache of a text
    each = tokens * sizes.shared * element + (tokens * one.reach if continues else 0.0)  # the mask, of booleans
    if not sizes.checkpointing:
        each = _cross_attention(sizes, one) if one.module == "encoder" else 0.0
        each += block(sizes, one, sizes.sequences * one.reach if cached else 0.0)
    norm = tokens * (sizes.shared + 2) * element
    total = sizes.matrices[one.module].layers * each + norm
    if one.module == "encoder":
        return total
    if one.gradient == "learn":  # the tokens that are mixed, padded at the left
        total += (tokens + _rows(sizes, one) * (sizes.mixed - 1)) * width * element
    if one.gradient == "position" and not sizes.checkpointing:
        total -= norm  # it enters behind the first block's norm
    return total if continues else total + tokens * width / sizes.config.heads * SINGLE  # cosines and sines


def block(sizes: Sizes, one: Pass, cached: float = 0.0) -> float:
    """``cached``: tokens whose keys and values stand in a cache, these ones included; they are copied into it."""
    config, split = sizes.config, sizes.split
    attention = 2 * split if cached else 6 * split  # rotated q, output; without a cache also q k v, and rotated k
    numbers = 2 * sizes.shared + attention + sizes.inner  # and the inputs of the norms and of gelu
    if one.gradient == "learn":
        numbers += 2 * sizes.shared + sizes.inner  # inputs of qkv, up and down
        numbers += split if sizes.cpu else 0  # and of the output product, which the CPU's attention lays out otherwise
    if sizes.rounded:
        numbers += 4 * config.hidden / config.heads / 2  # cosines and sines, rounded for queries and for keys
    sums = config.heads / sizes.tensor * SINGLE + 4 * sizes.element  # of softmax, a float32; two figures a norm
    return one.tokens * (numbers * sizes.element + sums) + (_mask(sizes, one) + cached * 2 * split) * sizes.element


def backward_of_block(sizes: Sizes, one: Pass) -> float:
    """Of the first block that is gone back through: gradients of its output and of the MLP's inner states, and all that
    it keeps where it is checkpointed."""
    again = block(sizes, one) - one.tokens * sizes.shared * sizes.element if one.gradient != "none" else 0.0
    return one.tokens * (sizes.config.hidden + sizes.inner) * sizes.element + (again if sizes.checkpointing else 0.0)


def beside_logits(sizes: Sizes, slots: float) -> float:
    """Going forward: the logits themselves, and as float32. The gradient is made in the memory of the logarithms."""
    return slots * sizes.logits * (sizes.element + sizes.rounded)


def _cross_attention(sizes: Sizes, one: Pass) -> float:
    """Once more a norm, attention and its inputs."""
    config, split = sizes.config, sizes.split
    numbers = config.hidden + 5 * split  # input of the norm; rotated q and k, output, k v
    if one.gradient == "learn":
        numbers += config.hidden + (split if sizes.cpu else 0)
    if sizes.rounded:
        numbers += 4 * config.hidden / config.heads / 2
    sums = config.heads / sizes.tensor * SINGLE + 2 * sizes.element
    return one.tokens * (numbers * sizes.element + sums)


def _mask(sizes: Sizes, one: Pass) -> float:
    """Entries of the attention mask, a float each (scaled_dot_product_attention makes them of booleans)."""
    if one.module == "encoder":
        return 0.0
    causal = one.module == "decoder" or sizes.config.family == "autoregressive"
    return one.tokens * (one.reach if causal else 1)


def _rows(sizes: Sizes, one: Pass) -> float:
    """Sequences of a pass."""
    return one.tokens / sizes.config.max_length if one.reach == sizes.config.max_length else sizes.sequences
