"""Floating-point operations of a training step: all matrix products, forward and backward, of one global batch.

A multiplication and an addition count as two; attention counts every pair of tokens that is computed, masked or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import RewardStage
from dualmask.families.span.config import SpanStage
from launcher.planner.parameters import matrices
from launcher.planner.passes import Draws, Gradient, Pass, Shape, flat, walk

AT_SLOTS = (
    "filler.up",
    "filler.down",
    "inserter.left",
    "inserter.right",
    "inserter.gone",
    "inserter.pieces",
    "inserter.count",
)
# their inputs carry none
WITHOUT_GRADIENT = (
    "picker.rate",
    "picker.opinion",
    "picker.repeats",
    "inserter.gone",
    "inserter.pieces",
    "filler.hint",
    "filler.pieces",
    "gate.statistics",
)
BACKWARD: dict[Gradient, int] = {"learn": 2, "through": 1, "position": 1, "none": 0}  # products for one forward


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


def step_cost(shape: Shape, stage: StageConfig, draws: Sequence[Draws] | None = None) -> Cost:
    """Of an optimizer step at the end of the stage. ``draws``: of each round; None: ``passes.expected``.

    Raises ValueError for stage `reward`, which is not planned.
    """
    if isinstance(stage, RewardStage):
        raise ValueError(f"stage {stage.name} is not planned: its rollouts are made by a second model")
    lengths: Sequence[float | None] = stage.span.lengths if isinstance(stage, SpanStage) else [None]
    total = Cost()
    for window in (window for length in lengths for window in walk(shape, stage, draws, length)):
        passes = list(flat([window]))[::-1]  # any order will do; this one rounds as tests/golden recorded it
        total += sum((_trunk(shape, one) for one in passes), Cost()) + sum(
            (_head(shape, one) for one in passes), Cost()
        )
    return total * (1 / len(lengths))


def _trunk(shape: Shape, one: Pass) -> Cost:
    module = matrices(shape.config, shape.vocab_size).get(one.module)
    if module is None or not module.layers:
        return Cost()
    width, pairs = shape.config.hidden, one.tokens * one.reach  # of a query and a key
    attentions = 2 if one.module == "encoder" else 1  # one of them looks at the decoder
    block = _product(one.tokens * sum(matrix.size() for matrix in module.block), one.gradient)
    block += _product(2 * attentions * pairs * width, "none" if one.gradient == "none" else "learn")
    cost = block * module.layers
    if one.gradient == "position":  # it enters behind the first block's inputs and past its values
        cost += Cost(backward=-(2 * one.tokens * 3 * width**2 + 2 * pairs * width))
    return Cost(cost.forward, cost.backward, cost.forward if shape.checkpointing and cost.backward else 0.0)


def _head(shape: Shape, one: Pass) -> Cost:
    """What a pass multiplies with outside its blocks."""
    if one.module == "mix":
        return _product(one.tokens * one.slots * shape.config.hidden, one.gradient)
    module = matrices(shape.config, shape.vocab_size).get(one.module)
    ready = one.reading in ("likeliest", "draw")  # the logits are there already
    if module is None or ready or (one.module == "gate" and shape.config.family == "spanfusion"):  # no GateNet
        return Cost()
    cost = Cost()
    for matrix in module.head:
        if (matrix.owner == "filler.hint" and not one.hinted) or (matrix.owner.endswith(".pieces") and not one.told):
            continue
        rows = one.slots if matrix.owner in AT_SLOTS else one.tokens
        rows = one.tokens / shape.config.max_length if matrix.owner == "picker.rate" else rows  # once a text
        gradient = one.gradient
        if matrix.owner in WITHOUT_GRADIENT:
            gradient = "through" if gradient == "learn" else "none"
        cost += _product(rows * matrix.size(), gradient)
    return cost


def _product(elements: float, gradient: Gradient) -> Cost:
    """``elements``: of a matrix, as often as it is multiplied by a row."""
    return Cost(2.0 * elements, 2.0 * elements * BACKWARD[gradient])
