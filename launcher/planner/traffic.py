"""Bytes that a rank sends for one optimizer step: gathered parameters, reduced gradients, tensor-parallel activations.

A ring of n ranks sends (n − 1)/n of a tensor for its all-gather or reduce-scatter, and twice that for its all-reduce
(Patarasuk & Yuan 2009); it receives as much. Ranks of figures (norms, losses of a step) are left out.
"""

# D width, M slots, N likeliest tokens of a slot

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import ParallelConfig, RunConfig
from dualmask.config.stage import StageConfig
from launcher.planner.flops import Draws, Shape, expected
from launcher.planner.gathers import FORGETFUL, Distances, Gathers, gathers
from launcher.planner.parameters import learning, parameters
from launcher.planner.passes import Pass, layers, windows
from launcher.planner.sections import of

BUCKET = 2**24  # elements of gradients that are reduced at a time (dualmask/config/deepspeed.py)
SINGLE, LONG = 4, 8  # bytes of a float32 and of an id
LOSS = 3 * SINGLE  # of a slot's cross entropy: greatest logit, target's logit, sum of exponentials


@dataclass(frozen=True)
class Traffic:
    """Of one rank in one step: bytes of the tensors that collectives work on, and what a ring sends for them."""

    data: int  # ranks
    tensor: int
    gathered: float = 0.0  # parameters, over the data-parallel ranks
    scattered: float = 0.0  # gradients, reduce-scattered over them
    reduced: float = 0.0  # gradients, all-reduced over them
    tensor_reduced: float = 0.0  # activations, over the tensor-parallel ranks
    tensor_gathered: float = 0.0
    held: float = 0.0  # gathered parameters that are there at a time, those left out that always are
    data_calls: int = 0  # collectives
    tensor_calls: int = 0

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
    far: Distances | None = None,
) -> Traffic:  # fmt: skip
    """Of a step at the end of the stage. ``draws``: of each round, over the global batch; None: ``expected``.

    far: ZeRO-3's distances; None: DeepSpeed's defaults. Raises ValueError where the batch does not divide.
    """
    parallel = run.parallel
    shape = Shape(run.model, vocab_size, run.batch.sequences, parallel.activation_checkpointing)
    played = windows(shape, stage, expected(shape, stage) if draws is None else draws)
    found, micros = parameters(run.model, vocab_size), micro_batches(run, data_size)
    learns = sum(p.size(parallel.tensor) for p in learning(found, stage))
    between = _activations(run, stage, played, micros, data_size)
    ours = replace(between, **_states(run, played, learns, micros, vocab_size, far or Distances()))
    return ours if data_size > 1 else replace(ours, held=0.0)


def _states(
    run: RunConfig, played: Sequence[Sequence[Pass]], learns: int, micros: int, vocab_size: int, far: Distances
) -> dict[str, Any]:
    """What data-parallel ranks do with parameters and gradients."""
    zero, element, passes = run.parallel.zero_stage, width(run.parallel), micros * len(played)
    buckets = ceil(learns / BUCKET)
    if zero == 0:
        return {"reduced": learns * element, "data_calls": buckets}
    if zero < 3:  # DeepSpeed all-reduces in buckets and keeps a part; the weights are gathered once
        times = passes if zero == 2 else 1
        return {
            "gathered": learns * element,
            "reduced": times * learns * element,
            "data_calls": (times + 1) * buckets,
        }
    each = each_window(run, vocab_size, played, far)
    every = [p.size(run.parallel.tensor) for p in parameters(run.model, vocab_size)]
    small = sum(size for size in every if size <= far.persistent)
    return {
        "gathered": (micros * sum(one.moved for one in each) + small) * element,
        "scattered": passes * learns * element,
        "held": max(one.most for one in each) * element,
        "data_calls": micros * sum(ceil(one.moved / (far.ahead + 1)) for one in each) + passes * buckets,
    }


def each_window(run: RunConfig, vocab_size: int, played: Sequence[Sequence[Pass]], far: Distances) -> list[Gathers]:
    """What ZeRO-3 gathers in the windows ``played``. A last window that is shorter makes DeepSpeed forget the order of
    calls, so that it keeps nothing between two calls of the next step's first, not even what is persistent."""
    found, parallel = tuple(parameters(run.model, vocab_size)), run.parallel
    known = [far] * len(played)
    if len(played[-1]) != len(played[0]):
        known[0] = FORGETFUL
    return [
        gathers(tuple(window), found, parallel.tensor, parallel.activation_checkpointing, one)
        for window, one in zip(played, known, strict=True)
    ]


def width(parallel: ParallelConfig) -> int:
    """Bytes of a weight, a gradient and an activation."""
    return 2 if parallel.precision == "bf16" else SINGLE


def _activations(
    run: RunConfig, stage: StageConfig, played: Sequence[Sequence[Pass]], micros: int, data_size: int
) -> Traffic:
    """What tensor-parallel ranks tell each other."""
    tensor = run.parallel.tensor
    if tensor == 1:
        return Traffic(data_size, tensor)
    passes = [one for window in played for one in window]
    reductions = [_reductions(run, one) for one in passes]
    top = of(stage).span.top_k if of(stage).span else of(stage).rollout.top_k
    figures = [_figures(one, top, tensor) for one in passes]
    wide = sum(number * places for pairs in reductions for number, places in pairs) * width(run.parallel)
    return Traffic(
        data_size,
        tensor,
        tensor_reduced=(wide + sum(reduced for reduced, _ in figures)) / data_size,
        tensor_gathered=sum(joined for _, joined in figures) / data_size,
        tensor_calls=micros * sum(number for pairs in reductions for number, places in pairs if places),
    )


def _reductions(run: RunConfig, one: Pass) -> list[tuple[int, float]]:
    """(all-reduces, elements of each for the whole global batch) of states in a pass.

    Megatron's: behind each pair of a column- and a row-parallel layer, and in front of it on the way back.
    """
    config, back = run.model, one.gradient != "none"
    wide, asked = one.places * config.hidden, one.slots * config.hidden
    if one.module == "lookup":
        return [(1, wide)]
    if one.module == "logits":
        return [(int(back), wide)]
    forward, backward = (3, 4) if one.module == "encoder" else (2, 2)  # with cross-attention, and without
    # repeating a block, autograd stops in front of its last all-reduce, which nothing has saved
    again = forward - 1 if back and run.parallel.activation_checkpointing else 0
    # a gradient of positions alone enters behind what the first block reads
    blocks = (layers(config, one.module) * (forward + back * backward + again) - (one.gradient == "position"), wide)
    if one.module == "filler":
        return [blocks, (1 + back, asked)]
    if one.module == "inserter":
        return [blocks, (2 * back, asked), (1, one.slots * (of(config).max_gap_count + 1))]
    return [blocks]


def _figures(one: Pass, top: int, tensor: int) -> tuple[float, float]:
    """Bytes all-reduced and all-gathered for losses and candidates: figures, not states."""
    reduced, joined = {
        "none": (0, 0),
        "loss": (LOSS, 0),
        "opinion": (2 * LOSS + SINGLE, tensor * (SINGLE + LONG)),
        "likeliest": (SINGLE, tensor * (SINGLE + LONG)),
        "draw": (top * SINGLE, tensor * top * (SINGLE + LONG)),
    }[one.reading]
    return one.places * reduced, one.places * joined
