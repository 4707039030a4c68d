"""Bytes that a rank holds at the fullest point of a step, by kind.

Which points of a forward and backward pass may be the greatest stands in ``peaks.py``. Here stand the states, what
DeepSpeed holds besides, and the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import RewardStage
from dualmask.families.span.config import SpanStage
from launcher.planner import muon
from launcher.planner.activations import Sizes
from launcher.planner.gathers import Distances
from launcher.planner.parameters import SINGLE, Parameter, element, learning, parameters
from launcher.planner.passes import Draws, Shape, Window, flat, walk
from launcher.planner.peaks import Peak, activation_peaks
from launcher.planner.traffic import traffic

# what DeepSpeed does where its configuration says nothing, in elements
SUB_GROUP = 10**9  # sub_group_size of ZeRO-3
ALL_REDUCE = 5 * 10**8  # what it all-reduces at a time without ZeRO


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the peak of a step."""

    weights: float = 0.0
    gradients: float = 0.0
    master: float = 0.0  # the optimizer's own float32 copy of what learns, and its average if there is one
    adam: float = 0.0  # its two moments; one for what Muon updates
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
    """At the greatest point of a step. ``data_size``: data-parallel ranks; ``draws``: what the data decide in each
    round of a micro-batch, None: what is to be expected.

    A run on ``device: cpu`` is planned as torch computes there, any other as on a GPU. Raises ValueError where the
    batch does not divide.
    """
    return max(peaks(run, stage, vocab_size, data_size, draws), key=lambda peak: peak.total)


def peaks(
    run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int, draws: Sequence[Draws] | None = None
) -> list[Memory]:
    """All points that may be the greatest, the optimizer's step at the end; arguments as for ``memory``."""
    rank = _Rank(run, stage, vocab_size, data_size)
    points = activation_peaks(stage, rank.sizes, draws)
    during = [rank.during(point) for point in points]
    if rank.zero["stage"] == 3:
        during.append(rank.reduction(max(point.activations for point in points)))
    return [*during, rank.step()]


def at_initialize(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> float:
    """Bytes of a rank's device while the stage's engine is made. First the weights stand there, with one slice of a
    parameter beside ZeRO-3's parts or the flat copy that ZeRO-1 and -2 make of a group; then what DeepSpeed makes of
    them, and under ZeRO-3 one parameter, gathered to hang its hooks on. The moments are left to the first step, which
    its optimizer of bfloat16 weights without ZeRO takes at once."""
    rank = _Rank(run, stage, vocab_size, data_size)
    zero, held, largest = rank.zero["stage"], rank.held, max(p.size(run.parallel.tensor) for p in rank.every)
    flat = max(rank.groups) * rank.width if zero in (1, 2) else 0
    gathered = largest * rank.width * gathered_copies(run, data_size) if zero == 3 else 0
    return max(held.weights + max(largest * rank.width, flat), _made(rank, held) + gathered)


def gathered_copies(run: RunConfig, ranks: int) -> int:
    """How often a tensor stands in memory that ``ranks`` ranks gather: gloo receives into a copy."""
    return 2 if run.device == "cpu" and ranks > 1 else 1


def _made(rank: _Rank, held: Memory) -> float:
    zero, single = rank.zero["stage"], rank.learns * SINGLE / rank.data_size
    if zero == 0:
        return rank.step().total if rank.width < SINGLE else held.weights
    buckets = rank.zero["reduce_bucket_size"] * rank.width if zero == 3 else 0
    if rank.offloads:
        return held.weights + buckets
    if zero < 3:  # gradients of all groups, as float32
        return held.weights + held.master + single
    group = min(max(rank.groups) / rank.data_size, SUB_GROUP) * SINGLE
    return held.weights + held.master + max(group, buckets + held.gradients)


def at_rest(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> float:
    """Bytes of a rank's device between two steps of the stage."""
    rank = _Rank(run, stage, vocab_size, data_size)
    return rank.held.total + (rank.zero["reduce_bucket_size"] * rank.width if rank.zero["stage"] == 3 else 0)


def offloaded(run: RunConfig, stage: StageConfig, vocab_size: int, data_size: int) -> float:
    """Bytes that a rank keeps on the host instead of its device: the optimizer's states, and gradients twice, as they
    are summed and as the optimizer takes them."""
    if run.parallel.offload == "none":
        return 0.0
    rank = _Rank(run, stage, vocab_size, data_size)
    learns = rank.learns / data_size
    averaged = run.optimizer.ema_decay is not None
    moments = muon.moments(run, rank.taught) / data_size
    return (SINGLE * (2 + averaged) + rank.width) * learns + SINGLE * moments


def _states(every: Iterable[Parameter], taught: Sequence[Parameter], run: RunConfig, data_size: int) -> Memory:
    """Behind the last backward pass of a step. ``taught``: those of the parameters ``every`` that learn."""
    parallel = run.parallel
    held, learns = (_elements(some, parallel.tensor) for some in (every, taught))
    width, zero = element(parallel), parallel.zero_stage
    shared = data_size if zero else 1
    copied, averaged = bool(zero) or width < SINGLE, run.optimizer.ema_decay is not None
    weights = held * width / (data_size if zero == 3 else 1)
    offloads = parallel.offload == "optimizer"
    if offloads and run.device != "cpu":
        return Memory(weights)
    return Memory(
        weights=weights,
        gradients=learns * (width + SINGLE * offloads) / shared,  # the host's optimizer takes them as float32
        master=(copied + averaged) * learns * SINGLE / shared,
        adam=muon.moments(run, taught) * SINGLE / shared,
    )


@dataclass(frozen=True)
class _Rank:
    run: RunConfig
    stage: StageConfig
    vocab_size: int
    data_size: int

    @cached_property
    def config(self) -> dict[str, Any]:
        return deepspeed_config(self.run, self.stage, data_size=self.data_size, cuda=not self.cpu)

    @property
    def zero(self) -> dict[str, Any]:
        return self.config["zero_optimization"]

    @property
    def far(self) -> Distances:
        return Distances.of(self.run.parallel)

    @property
    def cpu(self) -> bool:
        return self.run.device == "cpu"

    @property
    def offloads(self) -> bool:
        """To a memory that is not the device's own."""
        return self.run.parallel.offload == "optimizer" and not self.cpu

    @property
    def width(self) -> int:
        return element(self.run.parallel)

    @cached_property
    def every(self) -> tuple[Parameter, ...]:
        return parameters(self.run.model, self.vocab_size)

    @cached_property
    def taught(self) -> list[Parameter]:
        return learning(self.every, self.stage)

    @cached_property
    def copies(self) -> list[Parameter]:
        """Frozen parameters beside the model: a teacher that follows it, the reference of stage `reward`."""
        stage = self.stage
        if isinstance(stage, SpanStage) and stage.span.teacher == "ema" and stage.span.losses.latent > 0:
            return list(self.every)
        return [p for p in self.every if p.module in ("picker", "gate")] if isinstance(stage, RewardStage) else []

    @cached_property
    def held(self) -> Memory:
        held = _states([*self.every, *self.copies], self.taught, self.run, self.data_size)
        if self.copies and isinstance(self.stage, SpanStage) and self.width < SINGLE:
            own = _states(self.copies, [], self.run, self.data_size).weights
            return replace(held, weights=held.weights + own * SINGLE / self.width)  # the average itself, as float32
        return held

    @cached_property
    def sizes(self) -> Sizes:
        return Sizes(
            config=self.run.model,
            vocab_size=self.vocab_size,
            sequences=self.config["train_micro_batch_size_per_gpu"],
            tensor=self.run.parallel.tensor,
            element=self.width,
            checkpointing=self.run.parallel.activation_checkpointing,
            cpu=self.cpu,
            sequence=self.run.parallel.sequence,
        )

    @property
    def learns(self) -> int:
        """Elements."""
        return _elements(self.taught, self.run.parallel.tensor)

    @cached_property
    def windows(self) -> list[Window]:
        return walk(Shape(self.run.model, self.vocab_size, self.sizes.sequences), self.stage)

    @cached_property
    def used(self) -> int:
        """Elements of the parameters that a step gathers, if it gathers any."""
        if self.zero["stage"] < 3 or self.data_size == 1:
            return 0
        here = {"table", "projection", *self.stage.train, *(one.module for one in flat(self.windows))}
        return _elements([p for p in [*self.every, *self.copies] if p.module in here], self.run.parallel.tensor)

    @cached_property
    def gathered(self) -> float:
        """Bytes of the weights that are whole at a time; stage `reward` is not followed: all of them."""
        if self.used == 0 or isinstance(self.stage, RewardStage):
            return self.used * self.width
        sizes = [p.size(self.run.parallel.tensor) for p in self.every]
        persistent = sum(size for size in sizes if size <= self.far.persistent)
        return traffic(self.run, self.stage, self.vocab_size, self.data_size).held + persistent * self.width

    def during(self, peak: Peak) -> Memory:
        """A point of the last forward and backward pass of a step."""
        zero = self.zero
        stage, buckets = zero["stage"], zero["reduce_bucket_size"] * self.width
        if stage < 3:  # born with a backward pass's first gradient, gone at its end
            buckets *= (2 if zero["overlap_comm"] else 1) if stage and peak.reducing else 0
        # what is fetched ahead arrives in one piece, which is copied and lives until the last of it is used
        fetched = min(self.used, self.far.ahead) * self.width if peak.fetching else 0.0
        # gloo's two threads hold on to what they reduced last
        reduced = 2 * self.sizes.sequences * self.run.model.max_length * self.run.model.hidden * self.width
        reduced_copies = reduced if self.cpu and self.run.parallel.tensor > 1 else 0.0
        # a table that is read at both ends: its first gradient waits for the second
        table = self.every[0]
        tied = table.size(self.run.parallel.tensor) * self.width if peak.reducing and table in self.taught else 0.0
        several = int(self.config["gradient_accumulation_steps"]) * len(self.windows) > 1  # backward passes
        return replace(
            self.held,
            gradients=self.held.gradients if stage == 3 or several else 0.0,
            gathered=self.gathered + fetched,
            buckets=buckets,
            activations=peak.activations,
            workspace=peak.workspace + reduced_copies + tied,
        )

    def reduction(self, activations: float) -> Memory:
        """ZeRO-3's first full bucket of gradients, laid out anew by ranks (and copied by gloo). By then the backward
        pass has come through as large a share of the weights, and so of the activations."""
        filled = min(self.learns, self.zero["reduce_bucket_size"])
        point = self.during(Peak(activations * (1 - filled / self.learns)))
        return replace(point, buckets=point.buckets + filled * self.width * (2 if self.cpu else 1))

    @property
    def groups(self) -> Collection[int]:
        """Elements of each of the optimizer's groups, as training/engine.py forms them."""
        groups: dict[tuple[str | None, bool, bool], int] = {}
        for p in self.taught:
            group = self.stage.module_of(p.name), len(p.shape) > 1, muon.is_muons(self.run, p)
            groups[group] = groups.get(group, 0) + p.size(self.run.parallel.tensor)
        return groups.values()

    def step(self) -> Memory:
        """The optimizer's: gradients once more, flat, as float32, one group after the other. AdamW is fused."""
        stage = self.zero["stage"]
        matrix = muon.workspace(self.run, self.taught)
        if self.offloads:  # all but Muon's products
            return replace(self.held, workspace=matrix)
        if stage == 0:
            reduced = min(self.learns, ALL_REDUCE) * self.width  # while they are all-reduced
            single = self.learns * SINGLE if self.width < SINGLE else 0.0
            return replace(self.held, workspace=max(reduced, single + matrix))
        largest = max(self.groups) / self.data_size
        if stage < 3:
            return replace(self.held, workspace=largest * SINGLE + matrix)
        buckets = self.zero["reduce_bucket_size"] * self.width
        return replace(self.held, buckets=buckets, workspace=min(largest, SUB_GROUP) * SINGLE + matrix)


def _elements(some: Iterable[Parameter], tensor: int) -> int:
    return sum(p.size(tensor) for p in some)
