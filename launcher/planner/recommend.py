"""How to spread a run over given GPUs: of the degrees and micro-batches that fit the fastest, with reasons."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dualmask.config.deepspeed import micro_batches
from dualmask.config.hardware import GIB
from dualmask.config.load import ConfigError
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import RewardStage, RoundStage
from launcher.planner.distances import REUSES, settled, with_reuse
from launcher.planner.host import cannot_start
from launcher.planner.memory import Memory, memory
from launcher.planner.time import Cluster, Site, StepTime, run_seconds, step_time

MOST_GPUS = 2**17


@dataclass(frozen=True)
class Choice:
    """A run with its degrees, micro-batch and windows decided."""

    run: RunConfig
    site: Site

    @property
    def tensor(self) -> int:
        return self.run.parallel.tensor

    @property
    def data(self) -> int:
        return self.site.cluster.gpus // self.tensor

    @property
    def micro(self) -> int:
        """Sequences of a rank and forward pass."""
        return self.run.batch.sequences // self.data // micro_batches(self.run, self.data)

    @property
    def checkpointing(self) -> bool:
        return self.run.parallel.activation_checkpointing

    @property
    def window(self) -> int:
        return max((stage.rollout.window for stage in played(self.run)), default=1)

    @cached_property
    def memory(self) -> tuple[StageConfig, Memory]:
        """Of the stage that needs most, on one GPU."""
        each = [(s, memory(self.run, s, self.site.vocab_size, self.data)) for s in self.run.stages]
        return max(each, key=lambda pair: pair[1].total)

    @property
    def bytes(self) -> float:
        return self.memory[1].total

    @property
    def fits(self) -> bool:
        return self.bytes <= self.site.hardware.usable_bytes and not self.refusal

    @cached_property
    def refusal(self) -> str:
        """Why it cannot even start; "" if it can."""
        site = self.site
        return cannot_start(self.run, site.vocab_size, self.data, site.cluster.gpus_per_node, site.hardware)

    @cached_property
    def times(self) -> list[tuple[StageConfig, StepTime]]:
        return [(stage, step_time(self.run, stage, self.site)) for stage in planned(self.run)]

    @cached_property
    def seconds(self) -> tuple[float, float]:
        """(least, most) of the whole run."""
        return run_seconds(self.times)


@dataclass(frozen=True)
class Advice:
    choice: Choice
    reasons: tuple[str, ...]  # a sentence each

    @property
    def overrides(self) -> list[str]:
        """As ``--set`` takes them, the windows of the rounds included."""
        run, choice = self.choice.run, self.choice
        checkpointing = str(choice.checkpointing).lower()
        windows = [
            f"stages.{number}.rollout.window={stage.rollout.window}"
            for number, stage in enumerate(run.stages)
            if isinstance(stage, RoundStage) and not isinstance(stage, RewardStage)
        ]
        parallel = [f"parallel.tensor={choice.tensor}", f"parallel.activation_checkpointing={checkpointing}"]
        if (reuse := run.parallel.max_reuse_distance) is not None:
            parallel.append(f"parallel.max_reuse_distance={reuse}")
        return [*parallel, f"batch.micro={choice.micro}", *windows]


def planned(run: RunConfig) -> list[StageConfig]:
    """Stages that can be planned: rollouts of stage reward are a second model's."""
    return [stage for stage in run.stages if not isinstance(stage, RewardStage)]


def played(run: RunConfig) -> list[RoundStage]:
    """Those that unroll rounds."""
    return [stage for stage in planned(run) if isinstance(stage, RoundStage)]


def recommend(run: RunConfig, site: Site) -> Advice:
    """The fastest of what fits. Raises ConfigError where nothing does: it says what would.

    Windows W of the rounds are shortened, which changes what is learnt, only where nothing fits otherwise.
    """
    if not planned(run):
        raise ConfigError(f"{run.name} has no stage that is planned: the rollouts of stage reward are a second model's")
    for shorter in (False, True):
        spread = _one_round_a_window(run) if shorter else run
        every = list(choices(spread, site))
        if fitting := [choice for choice in every if choice.fits]:
            best = min(fitting, key=lambda choice: (choice.seconds[1], choice.tensor))
            return Advice(best, tuple(_reasons(best, every, shorter=shorter and spread != run)))
    if not every:
        raise ConfigError(
            f"batch.sequences={run.batch.sequences} cannot be shared by {site.cluster.gpus} GPUs with any "
            f"parallel.tensor up to {site.cluster.gpus_per_node}: make it a multiple of their number, or take fewer"
        )
    raise ConfigError(_remedy(spread, site, min(every, key=lambda choice: choice.bytes)))


def choices(run: RunConfig, site: Site) -> Iterator[Choice]:
    """Every tensor-parallel degree with and without checkpointing, each with the largest micro-batch that fits, or with
    one sequence where none does. A degree divides heads, vocabulary and node, and leaves each data-parallel rank whole
    sequences."""
    config, cluster = run.model, site.cluster
    for tensor in range(1, cluster.gpus_per_node + 1):
        if any(number % tensor for number in (cluster.gpus_per_node, config.heads, config.vocab_size or tensor)):
            continue
        if run.batch.sequences % (cluster.gpus // tensor):
            continue
        for checkpointing in (False, True):
            update = {"tensor": tensor, "activation_checkpointing": checkpointing}
            yield fastest(run.model_copy(update={"parallel": run.parallel.model_copy(update=update)}), site)


def fastest(run: RunConfig, site: Site) -> Choice:
    """Micro-batch and reuse distance; degrees as they are. What memory there is goes to a large micro-batch first, or
    to weights that stay gathered for a whole window."""
    roomy = largest(run, site)
    data, usable = roomy.data, site.hardware.usable_bytes
    large = Choice(settled(roomy.run, site.vocab_size, data, usable), site)
    if large.run.parallel.max_reuse_distance == run.parallel.max_reuse_distance:
        return large  # decided, or nothing is gathered
    kept = largest(with_reuse(run, REUSES[-1]), site)
    fitting = [choice for choice in (kept, large) if choice.fits]
    return min(fitting, key=lambda choice: choice.seconds[1], default=large)


def largest(run: RunConfig, site: Site) -> Choice:
    """With the largest micro-batch that fits, or with one sequence where none does; degrees as they are."""
    local = run.batch.sequences // (site.cluster.gpus // run.parallel.tensor)
    sizes = [size for size in range(1, local + 1) if local % size == 0]
    most = bisect_left(sizes, True, key=lambda size: not Choice(_with_micro(run, size), site).fits)
    return Choice(_with_micro(run, sizes[max(most - 1, 0)]), site)


def _with_micro(run: RunConfig, micro: int) -> RunConfig:
    return run.model_copy(update={"batch": run.batch.model_copy(update={"micro": micro})})


def _one_round_a_window(run: RunConfig) -> RunConfig:
    def shortened(stage: StageConfig) -> StageConfig:
        if not isinstance(stage, RoundStage):
            return stage
        return stage.model_copy(update={"rollout": stage.rollout.model_copy(update={"window": 1})})

    return run.model_copy(update={"stages": tuple(map(shortened, run.stages))})


def _reasons(best: Choice, every: list[Choice], *, shorter: bool) -> Iterator[str]:
    """Why not otherwise: what differs in one decision, in a sentence each."""
    limit = best.site.hardware.usable_bytes / GIB
    for other in every:
        on = other.checkpointing
        if (other.tensor == best.tensor) == (on == best.checkpointing):
            continue  # the choice itself, or two decisions away
        what = f"tensor={other.tensor} with" + ("" if on else "out") + " checkpointing"
        if not other.fits:
            yield f"{what} does not fit: a GPU would need {other.bytes / GIB:.0f} of {limit:.0f} GiB"
        else:
            yield f"{what} fits, too, and takes {other.seconds[1] / best.seconds[1]:.2f} times as long"
    if shorter:
        yield "window=1, which cuts the gradient between all rounds: with longer windows nothing fits"
    yield f"micro={best.micro} is the largest that fits: {best.bytes / GIB:.0f} of {limit:.0f} GiB"


def _remedy(run: RunConfig, site: Site, least: Choice) -> str:
    limit = site.hardware.usable_bytes / GIB
    line = (
        f"{run.name} does not fit on {site.cluster.gpus} × {site.hardware.name}: with parallel.tensor={least.tensor}, "
        f"batch.micro=1, window=1 and checkpointing a GPU still needs {least.bytes / GIB:.0f} of {limit:.0f} GiB"
    )
    nodes = 2 * site.cluster.nodes
    width = max(site.cluster.gpus_per_node, site.hardware.gpus_per_node)
    while nodes * width <= MOST_GPUS:
        larger = Site(site.hardware, Cluster(nodes, width), site.vocab_size)
        if any(choice.fits for choice in choices(run, larger)):
            return f"{line}; it would on {nodes * width} GPUs"
        nodes *= 2
    return f"{line}; more GPUs do not help: shorten model.max_length or take a GPU with more memory"
