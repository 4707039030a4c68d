"""Bytes that a rank holds at the greatest moment of a step, by kind.

Three moments may be the greatest: a forward or backward pass (dualmask/planning/activations.py), and the optimizer's
step. What DeepSpeed holds besides the tensors of the model stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import ParallelConfig, RunConfig, StageConfig
from dualmask.planning.activations import Moment, Sizes
from dualmask.planning.flops import Draws
from dualmask.planning.gathers import Distances
from dualmask.planning.moments import moments
from dualmask.planning.parameters import Parameter, learning, parameters
from dualmask.planning.traffic import traffic

SINGLE = 4  # bytes of a float32
ALL_REDUCE = 5 * 10**8  # elements that DeepSpeed all-reduces at a time without ZeRO


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the peak of a step."""

    weights: float = 0.0
    gradients: float = 0.0
    master: float = 0.0  # the optimizer's own float32 copy of what learns
    adam: float = 0.0  # its two moments
    gathered: float = 0.0  # whole parameters that ZeRO-3 holds at a time
    buckets: float = 0.0  # buffers in which gradients are reduced
    activations: float = 0.0  # kept for backward
    workspace: float = 0.0  # of the operation that needs most

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))


def memory(
    run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int, draws: Sequence[Draws] | None = None
) -> Memory:
    """At the greatest moment of a step. ``data_size``: data-parallel ranks; ``draws``: what the data decide in each round
    of a micro-batch, None: what is to be expected.

    A run on ``device: cpu`` is planned as torch computes there, any other as on a GPU. Raises ValueError where the
    batch does not divide.
    """
    return max(peaks(run, stage, vocab_size, data_size, draws), key=lambda moment: moment.total)


def peaks(
    run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int, draws: Sequence[Draws] | None = None
) -> list[Memory]:
    """All moments that may be the greatest; as ``memory``."""
    found = parameters(run.model, vocab_size)
    taught = learning(found, stage)
    found = found + copied(found, stage)
    held = states(found, taught, run.parallel, data_size)
    if stage.span is not None and stage.span.teacher == "ema" and run.parallel.precision == "bf16":
        held = replace(held, weights=3 * held.weights / 2 + held.weights / 2)  # its float32 average beside it
    config = deepspeed_config(run, stage, data_size=data_size, cuda=run.device != "cpu")
    zero, sizes = config["zero_optimization"], sizes_of(run, config, vocab_size)
    passes = config["gradient_accumulation_steps"] * -(-rounds(stage) // stage.rollout.window)
    gathered = _gathered(run, stage, vocab_size, data_size) if zero["stage"] == 3 and data_size > 1 else 0.0
    busy = replace(held, gathered=gathered)
    each = [_during(moment, busy, found, run, zero, passes) for moment in moments(stage, sizes, draws)]
    return [*each, _step(held, taught, run, zero, data_size)]


def copied(found: Sequence[Parameter], stage: StageConfig) -> list[Parameter]:
    """Frozen parameters beside the model: a teacher that follows it, the reference of stage `reward`."""
    if stage.span is not None and stage.span.teacher == "ema" and stage.span.losses.latent > 0:
        return list(found)
    return [p for p in found if p.module in ("picker", "gate")] if stage.reward is not None else []


def rounds(stage: StageConfig) -> int:
    return stage.rollout.rounds if "picker" in stage.train else 1


def sizes_of(run: RunConfig, config: dict[str, Any], vocab_size: int) -> Sizes:
    parallel = run.parallel
    return Sizes(
        config=run.model,
        vocab_size=vocab_size,
        sequences=config["train_micro_batch_size_per_gpu"],
        tensor=parallel.tensor,
        element=element(parallel),
        checkpointing=parallel.activation_checkpointing,
        cpu=run.device == "cpu",
    )


def element(parallel: ParallelConfig) -> int:
    """Bytes of a weight, a gradient and an activation."""
    return 2 if parallel.precision == "bf16" else SINGLE


def states(found: Sequence[Parameter], taught: Sequence[Parameter], parallel: ParallelConfig, data_size: int) -> Memory:
    """Behind the last backward pass of a step. ``taught``: those of the parameters ``found`` that learn."""
    every, learns = (sum(p.size(parallel.tensor) for p in some) for some in (found, taught))
    width, zero = element(parallel), parallel.zero_stage
    shared = data_size if zero else 1
    return Memory(
        weights=every * width / (data_size if zero == 3 else 1),
        gradients=learns * width / shared,
        master=learns * SINGLE / shared if zero or width < SINGLE else 0.0,
        adam=2 * learns * SINGLE / shared,
    )


def _during(
    moment: Moment,
    held: Memory,
    found: Sequence[Parameter],
    run: RunConfig,
    zero: dict[str, Any],
    passes: int,
) -> Memory:
    """A moment of the last forward and backward pass of a step."""
    width, stage = element(run.parallel), zero["stage"]
    tied = found[0].size(run.parallel.tensor) * width if moment.reducing else 0.0  # gathers both gradients of the table
    bucket = 0.0
    if stage == 3 or (stage and moment.reducing):
        bucket = zero["reduce_bucket_size"] * width * (2 if zero["overlap_comm"] and stage < 3 else 1)
    return replace(
        held,
        gradients=held.gradients if stage == 3 or passes > 1 else 0.0,
        buckets=bucket,
        activations=moment.activations,
        workspace=moment.workspace + tied,
    )


def _gathered(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> float:
    """Of a pass: what is never given up, and the most of the rest; stage `reward` is not followed: everything."""
    persistent, width = Distances().persistent, element(run.parallel)
    every = [p.size(run.parallel.tensor) for p in parameters(run.model, vocab_size)]
    if stage.reward is not None:
        return sum(every) * width
    small = sum(size for size in every if size <= persistent)
    return traffic(run, stage, vocab_size, data_size).held + small * width


def _step(held: Memory, taught: Sequence[Parameter], run: RunConfig, zero: dict[str, Any], data_size: int) -> Memory:
    """The optimizer's step: gradients once more, flat, as float32, one optimizer group after the other."""
    stage, tensor = zero["stage"], run.parallel.tensor
    if stage == 0:
        learns, greatest = (some(p.size(tensor) for p in taught) for some in (sum, max))
        flat = min(learns, ALL_REDUCE) * element(run.parallel)
        rounded = learns * SINGLE if element(run.parallel) < SINGLE else 0.0
        return replace(held, workspace=max(flat, rounded + (2 * greatest * SINGLE if run.device == "cpu" else 0.0)))
    groups: dict[tuple[str, bool], int] = {}
    for p in taught:
        group = (p.module, len(p.shape) > 1)  # as training/engine.py forms them; a table goes with the learning trunk
        groups[group] = groups.get(group, 0) + p.size(tensor)
    largest = max(groups.values()) / data_size * SINGLE
    copies = 3 if run.device == "cpu" else 1  # without a fused AdamW, the denominator and its root
    buckets = zero["reduce_bucket_size"] * element(run.parallel) if stage == 3 else 0.0
    return replace(held, buckets=buckets, workspace=copies * largest)
