"""Bytes that a rank holds at the greatest moment of a step, by kind.

Three moments may be the greatest: a forward or backward pass (dualmask/planning/activations.py), and the optimizer's
step. What DeepSpeed holds besides the tensors of the model stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import ParallelConfig, RunConfig, StageConfig
from dualmask.planning.activations import Moment, Sizes, moments
from dualmask.planning.flops import Draws
from dualmask.planning.parameters import Parameter, learning, parameters

SINGLE = 4  # bytes of a float32
# what DeepSpeed's ZeRO-3 does where its configuration says nothing, in elements
PREFETCH = 5 * 10**7  # stage3_prefetch_bucket_size
REUSE = 10**9  # stage3_max_reuse_distance
PERSISTENT = 10**5  # stage3_param_persistence_threshold


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
    """``data_size``: data-parallel ranks; ``draws``: what the data decide in each round of a micro-batch, None: expected.

    A run on ``device: cpu`` is planned as torch computes there, any other as on a GPU. Raises ValueError where the batch
    does not divide.
    """
    found = parameters(run.model, vocab_size)
    taught = learning(found, stage)
    held = states(found, taught, run.parallel, data_size)
    config = deepspeed_config(run, stage, data_size=data_size, cuda=run.device != "cpu")
    zero, sizes = config["zero_optimization"], sizes_of(run, config, vocab_size)
    passes = config["gradient_accumulation_steps"] * -(-rounds(stage) // stage.rollout.window)
    each = [_during(moment, held, found, run, zero, passes, data_size) for moment in moments(run, stage, sizes, draws)]
    return max([*each, _step(held, taught, run, zero, data_size)], key=lambda memory: memory.total)


def rounds(stage: StageConfig) -> int:
    return stage.rollout.rounds if "picker" in stage.train else 1


def sizes_of(run: RunConfig, config: dict, vocab_size: int) -> Sizes:
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
    moment: Moment, held: Memory, found: Sequence[Parameter], run: RunConfig, zero: dict, passes: int, data_size: int
) -> Memory:
    """A moment of the last forward and backward pass of a step."""
    width, stage = element(run.parallel), zero["stage"]
    tied = found[0].size(run.parallel.tensor) * width if moment.reducing else 0.0  # gathers both gradients of the table
    bucket = 0.0
    if stage == 3 or stage and moment.reducing:
        bucket = zero["reduce_bucket_size"] * width * (2 if zero["overlap_comm"] and stage < 3 else 1)
    return replace(
        held,
        gradients=held.gradients if stage == 3 or passes > 1 else 0.0,
        gathered=_gathered(found, run.parallel, data_size) if stage == 3 else 0.0,
        buckets=bucket,
        activations=moment.activations,
        workspace=moment.workspace + tied,
    )


def _gathered(found: Sequence[Parameter], parallel: ParallelConfig, data_size: int) -> float:
    if data_size == 1:
        return 0.0
    every = sum(p.size(parallel.tensor) for p in found)
    return min(every, REUSE / 2 + PREFETCH) * element(parallel)


def _step(held: Memory, taught: Sequence[Parameter], run: RunConfig, zero: dict, data_size: int) -> Memory:
    return held
