"""Bytes that a rank sends for one optimizer step: gathered parameters, reduced gradients, tensor-parallel activations.

A ring of n ranks sends (n − 1)/n of a tensor for its all-gather or reduce-scatter, and twice that for its all-reduce
(Patarasuk & Yuan 2009); it receives as much. Ranks of figures (norms, losses of a step) are left out.
"""

# D width, M slots, N likeliest tokens of a slot

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import ParallelConfig, RunConfig, StageConfig
from dualmask.planning.flops import Draws, Shape, expected
from dualmask.planning.gathers import PERSISTENT, REUSE_DISTANCE, Gathers, count, sizes, visits
from dualmask.planning.parameters import learning, parameters
from dualmask.planning.passes import Pass, layers, windows

SINGLE, LONG = 4, 8  # bytes of a float32 and of an id
LOSS = 3 * SINGLE  # of a slot's cross entropy: greatest logit, target's logit, sum of exponentials


@dataclass(frozen=True)
class Traffic:
    """Bytes of the tensors that one rank's collectives work on in a step, and what a ring sends for them."""

    gathered: float  # parameters, over the data-parallel ranks
    scattered: float  # gradients, reduce-scattered over them
    reduced: float  # gradients, all-reduced over them
    tensor_reduced: float  # activations, over the tensor-parallel ranks
    tensor_gathered: float
    data: int
    tensor: int

    @property
    def parameters(self) -> float:
        """Bytes sent, as those below."""
        return ring(self.data) * self.gathered

    @property
    def gradients(self) -> float:
        return ring(self.data) * (self.scattered + 2 * self.reduced)

    @property
    def activations(self) -> float:
        return ring(self.tensor) * (2 * self.tensor_reduced + self.tensor_gathered)

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.activations


def ring(ranks: int) -> float:
    """Share of a tensor that a rank sends to all-gather or to reduce-scatter it."""
    return (ranks - 1) / ranks


def traffic(
    run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int, *, draws: Sequence[Draws] | None = None,
    reuse: int = REUSE_DISTANCE, persistent: int = PERSISTENT,
) -> Traffic:  # fmt: skip
    """Of a step at the end of the stage. ``draws``: of each round, over the global batch; None: ``expected``.

    reuse, persistent: DeepSpeed's ``stage3_max_reuse_distance`` and ``stage3_param_persistence_threshold``. Raises
    ValueError where the batch does not divide.
    """
    parallel = run.parallel
    shape = Shape(run.model, vocab_size, run.batch.sequences, parallel.activation_checkpointing)
    draws = expected(shape, stage) if draws is None else draws
    played = windows(shape, stage, draws)
    found = parameters(run.model, vocab_size)
    micros, element = micro_batches(run, data_size), width(parallel)
    learns = sum(p.size(parallel.tensor) for p in learning(found, stage))
    gathered, scattered, reduced = 0.0, 0.0, 0.0
    if parallel.zero_stage == 3:
        small = sum(p.size(parallel.tensor) for p in found if p.size(parallel.tensor) <= persistent)
        moved = sum(one.moved for one in gathers(run, stage, vocab_size, played, reuse, persistent))
        gathered, scattered = micros * moved + small, micros * len(played) * learns
    elif parallel.zero_stage > 0:  # DeepSpeed all-reduces in buckets and keeps a part; the weights are gathered once
        times = micros * len(played) if parallel.zero_stage == 2 else 1
        gathered, reduced = learns, times * learns
    else:
        reduced = learns
    kinds = [_activations(run, one) for window in played for one in window]
    summed, joined = (sum(part) / data_size for part in zip(*kinds, strict=True))
    return Traffic(
        gathered * element, scattered * element, reduced * element, summed, joined, data_size, parallel.tensor
    )


def gathers(
    run: RunConfig, stage: StageConfig, vocab_size: int, played: Sequence[Sequence[Pass]], reuse: int, persistent: int
) -> list[Gathers]:
    """ZeRO-3's, of each window ``played``. Windows that differ in length let DeepSpeed forget their order every time:
    then nothing is kept between two calls, not even what is persistent."""
    found, forgets = parameters(run.model, vocab_size), len({len(window) for window in played}) > 1
    whole, moving = sizes(found, run.parallel.tensor, persistent)
    orders = [list(visits(w, found, checkpointing=run.parallel.activation_checkpointing)) for w in played]
    return [count(order, whole, whole, 0) if forgets else count(order, whole, moving, reuse) for order in orders]


def width(parallel: ParallelConfig) -> int:
    """Bytes of a weight, a gradient and an activation."""
    return 2 if parallel.precision == "bf16" else SINGLE


def _activations(run: RunConfig, one: Pass) -> tuple[float, float]:
    """Bytes that a pass all-reduces and all-gathers over the tensor-parallel ranks, for the whole global batch.

    Megatron's: behind each pair of a column- and a row-parallel layer, and in front of it on the way back.
    """
    tensor, config = run.parallel.tensor, run.model
    back, again = one.gradient != "none", run.parallel.activation_checkpointing and one.gradient != "none"
    wide = one.places * config.hidden * width(run.parallel)
    if one.module == "lookup":
        return wide, 0.0
    if one.module == "logits":
        reduced, joined = _read(one, run)
        return back * wide + reduced, joined
    forward, backward = (3, 4) if one.module == "encoder" else (2, 2)  # with cross-attention, and without
    # repeating a block, autograd stops in front of its last all-reduce, which nothing has saved
    blocks = layers(config, one.module) * (forward + back * backward + again * (forward - 1)) * wide
    asked = one.slots * config.hidden * width(run.parallel)
    heads: dict[Any, float] = {
        "filler": (1 + back) * asked,
        "inserter": back * 2 * asked + one.slots * (config.max_gap_count + 1) * width(run.parallel),
    }
    return blocks + heads.get(one.module, 0.0), 0.0 * tensor


def _read(one: Pass, run: RunConfig) -> tuple[float, float]:
    """Of losses and candidates: figures, not states."""
    tensor, number = run.parallel.tensor, run.stages[0].rollout.top_k
    each = {
        "none": (0.0, 0.0),
        "loss": (LOSS, 0.0),
        "opinion": (2 * LOSS + SINGLE, tensor * (SINGLE + LONG)),
        "draw": (number * SINGLE, tensor * number * (SINGLE + LONG)),
    }[one.reading]
    return one.places * each[0], one.places * each[1]
