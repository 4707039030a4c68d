"""Bytes that a rank sends for one optimizer step: gathered parameters, reduced gradients, tensor-parallel activations.

A ring of n ranks sends (n − 1)/n of a tensor for its all-gather or reduce-scatter, and twice that for its all-reduce
(Patarasuk & Yuan 2009); it receives as much. Ranks of figures (norms, losses of a step) are left out.
"""

# D width, M slots, N likeliest tokens of a slot

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import RoundStage
from dualmask.families.span.config import SpanStage
from launcher.planner.gathers import FORGETFUL, Distances, gathers
from launcher.planner.parameters import SINGLE, Matrices, element, learning, matrices, parameters
from launcher.planner.passes import Draws, Pass, Shape, Window, flat, walk

BUCKET = 2**24  # elements of gradients that are reduced at a time (dualmask/config/deepspeed.py)
LONG = 8  # bytes of an id
LOSS = 3 * SINGLE  # of a slot's cross entropy: greatest logit, target's logit, sum of exponentials


@dataclass(frozen=True)
class Traffic:
    """Of one rank in one step: bytes of the tensors that collectives work on, and what a ring sends for them."""

    data: int  # ranks
    tensor: int
    gathered: float = 0.0  # parameters, over the data-parallel ranks
    once: float = 0.0  # of them under ZeRO-3, if each were gathered once in each window of rounds
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
    """Of a step at the end of the stage. ``draws``: of each round, over the global batch; None: ``passes.expected``.

    far: ZeRO-3's distances; None: those of the run. Raises ValueError where the batch does not divide.
    """
    parallel, micros = run.parallel, micro_batches(run, data_size)
    windows = walk(Shape(run.model, vocab_size, run.batch.sequences, parallel.activation_checkpointing), stage, draws)
    sent = Traffic(data_size, parallel.tensor)
    if parallel.tensor > 1:
        sent = _activations(sent, run, stage, windows, vocab_size, micros)
    sent = _states(sent, run, stage, windows, vocab_size, micros, far or Distances.of(parallel))
    return sent if data_size > 1 else replace(sent, held=0.0)


def _states(
    sent: Traffic, run: RunConfig, stage: StageConfig, windows: Sequence[Window], vocab_size: int, micros: int,
    far: Distances,
) -> Traffic:  # fmt: skip
    """What data-parallel ranks do with parameters and gradients."""
    every, tensor = parameters(run.model, vocab_size), run.parallel.tensor
    zero, width, backwards = run.parallel.zero_stage, element(run.parallel), micros * len(windows)
    learns = sum(p.size(tensor) for p in learning(every, stage))
    buckets = ceil(learns / BUCKET)
    if zero == 0:
        return replace(sent, reduced=learns * width, data_calls=buckets)
    if zero < 3:  # DeepSpeed all-reduces in buckets and keeps a part; the weights are gathered once
        times = backwards if zero == 2 else 1
        calls = (times + 1) * buckets
        return replace(sent, gathered=learns * width, reduced=times * learns * width, data_calls=calls)
    # a last window that is shorter makes DeepSpeed forget the order of calls: it keeps nothing between two calls of the
    # next step's first, not even what is persistent
    known = [far if number or len(windows[-1]) == len(windows[0]) else FORGETFUL for number in range(len(windows))]
    again = run.parallel.activation_checkpointing
    each = [gathers(window, every, tensor, again, one) for window, one in zip(windows, known, strict=True)]
    small = sum(size for size in (p.size(tensor) for p in every) if size <= far.persistent)
    return replace(
        sent,
        gathered=(micros * sum(one.moved for one in each) + small) * width,
        once=(micros * sum(one.once for one in each) + small) * width,
        scattered=backwards * learns * width,
        held=max(one.most for one in each) * width,
        data_calls=micros * sum(ceil(one.moved / (far.ahead + 1)) for one in each) + backwards * buckets,
    )


def _activations(
    sent: Traffic, run: RunConfig, stage: StageConfig, windows: Sequence[Window], vocab_size: int, micros: int
) -> Traffic:
    """What tensor-parallel ranks tell each other."""
    modules = matrices(run.model, vocab_size)
    drawing = stage.span if isinstance(stage, SpanStage) else stage.rollout if isinstance(stage, RoundStage) else None
    top = drawing.top_k if drawing else 0
    states = [pair for one in flat(windows) for pair in _reductions(run, one, modules.get(one.module))]
    figures = [_figures(one, top, sent.tensor) for one in flat(windows)]
    wide = sum(number * elements for number, elements in states) * element(run.parallel)
    return replace(
        sent,
        tensor_reduced=(wide + sum(reduced for reduced, _ in figures)) / sent.data,
        tensor_gathered=sum(joined for _, joined in figures) / sent.data,
        tensor_calls=micros * sum(number for number, elements in states if elements),
    )


def _reductions(run: RunConfig, one: Pass, module: Matrices | None) -> Iterator[tuple[int, float]]:
    """(all-reduces, elements of each for the whole global batch) of states in a pass.

    Megatron's: behind each row-parallel matrix, and on the way back in front of what column-parallel ones share.
    """
    back = one.gradient != "none"
    if module is None:
        yield int(one.module == "lookup"), one.tokens * run.model.hidden
        return
    forward, backward = (sum(p.split == axis for p in module.block) for axis in (1, 0))
    # repeating a block, autograd stops in front of its last all-reduce, which nothing has saved
    again = forward - 1 if back and run.parallel.activation_checkpointing else 0
    # a gradient of positions alone enters behind what the first block reads
    entry = bool(module.layers) and one.gradient == "position"
    yield module.layers * (forward + back * backward + again) - entry, one.tokens * run.model.hidden
    rows = one.tokens if one.module == "logits" else one.slots
    yield from ((1, rows * p.shape[0]) for p in module.head if p.split == 1)
    yield from ((int(back), rows * p.shape[1]) for p in module.head if p.split == 0)


def _figures(one: Pass, top: int, tensor: int) -> tuple[float, float]:
    """Bytes all-reduced and all-gathered for losses and candidates: figures, not states."""
    reduced, joined = {
        "none": (0, 0),
        "loss": (LOSS, 0),
        "score": (2 * LOSS + SINGLE, tensor * (SINGLE + LONG)),
        "likeliest": (SINGLE, tensor * (SINGLE + LONG)),
        "draw": (top * SINGLE, tensor * top * (SINGLE + LONG)),
    }[one.reading]
    return one.tokens * reduced, one.tokens * joined
