"""What a family offers the trainer: a task for each stage, and how its model is built.

The trainer owns time (steps, stages, checkpoints); a task owns what happens within a step: its batches, the windows of
its backward passes, its losses, and what it wants to remember from one step to the next.
"""

# B sequences of this rank

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dualmask.config.model import ModelConfig
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.nn.token_losses import ScoredSlots

Result = TypeVar("Result")


class WindowLoss(NamedTuple):
    """One backward pass of a step. A tuple, because DeepSpeed's hooks look for tensors in nothing else."""

    total: Tensor  # scalar, to be averaged over data-parallel ranks and micro-batches
    parts: dict[str, Tensor]  # detached scalars: each loss unweighted, and diagnostics; windows of a step add up
    state: Any = None  # what the next window of the step begins with; carries no gradient


@dataclass(frozen=True)
class Preview:
    """What the model of a stage does with a few texts, for people: a block of lines each."""

    blocks: list[str] = field(default_factory=list)


def lines_of(texts: Mapping[str, str]) -> str:
    """A block of a preview: a named text a line."""
    return "\n".join(f"{name:14}{text.replace(chr(10), '⏎')}" for name, text in texts.items())


@dataclass(frozen=True)
class Alarm:
    """A collapse that losses do not show."""

    name: str  # the metric is alarm_NAME
    text: str  # one line: what, since when, what it means, what to try


@dataclass(frozen=True)
class AfterStep:
    """What a task makes of the figures of a step. The same on every rank, because the figures are."""

    metrics: dict[str, float]
    memory: dict[str, Any]  # goes into checkpoints and into the plan of the next step; JSON
    alarms: tuple[Alarm, ...] = ()


class Measure:
    """How a stage is judged on held-out texts: by sums over texts, so that neither ranks nor batches change a figure.

    This one serves any family: the mean loss of a text, each read by itself, because parts of a loss may be ratios.
    """

    best = "dev_loss"  # the figure by which evaluations are compared if the run names no other
    texts_at_once: int | None = 1  # None: as many as a micro-batch holds

    def __init__(self, task: Task) -> None:
        self.task = task

    def sums(self, batch: Batch, plan: StepPlan) -> dict[str, Tensor]:
        """By name: what adds up over batches and ranks, float, of any shape. Collective; without gradient, in
        evaluation mode. [2]: numerator and denominator of the figure ``dev_NAME``."""
        total, state = torch.zeros((), device=batch.tokens.device), None
        for rounds in self.task.windows(plan):
            out = self.task.window(batch, plan, rounds, state)
            total, state = total + out.total, out.state
        rows = len(batch.length)
        return {"loss": ratio(total * rows, rows)}

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures by name, all of them in ``Family.dev_figures`` and ``dev_loss`` among them, from the sums over
        everything, float64 on the CPU. Pure."""
        return {f"dev_{name}": float(pair[0] / pair[1]) for name, pair in sums.items() if pair.shape == (2,)}


def ratio(numerator: Tensor, denominator: Tensor | int) -> Tensor:
    """[2] float64: parts of a ratio that add up."""
    above = numerator.double()
    return torch.stack([above, torch.as_tensor(denominator, dtype=above.dtype, device=above.device)])


class Task(nn.Module):
    """A model with what one stage teaches it. Other modules of it that have parameters are copies of the model.

    DeepSpeed hangs its hooks on ``forward``, so whatever uses the model runs as ``engine(task.window, …)`` or
    ``engine(task.preview, …)``. Every module that learns must run in every window on every rank, and every rank must
    have equally many windows.
    """

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, method: Callable[..., Result], *arguments: Any) -> Result:
        """``method``: one of this task's."""
        return method(*arguments)

    def windows(self, plan: StepPlan) -> list[range]:
        """The parts of a step that have a backward pass of their own (truncated BPTT)."""
        return [range(1)]

    @abstractmethod
    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: Any) -> WindowLoss:
        """The loss of one window; ``state``: that of the window before, None in the first."""

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        """Collective. Without gradient, in evaluation mode."""
        return Preview()

    def measure(self) -> Measure:
        """How the stage is judged while it runs (section ``eval`` of a run)."""
        return Measure(self)

    def batch(self, plan: StepPlan) -> Batch | None:
        """This rank's batch of the step, on the CPU; None: the next one of the run's data."""
        return None

    def prepare(self, batch: Batch, plan: StepPlan) -> Batch:
        """The batch, on the CPU, with what of the step can be known before it begins: the host then need not wait for
        the device to know it. Pure; ``window`` takes the batch with or without."""
        return batch

    def after_step(self, plan: StepPlan, metrics: Mapping[str, float]) -> AfterStep:
        """Pure: a function of its arguments. ``metrics``: of the whole step, over all ranks."""
        return AfterStep(dict(metrics), dict(plan.memory))

    def follower(self) -> tuple[nn.Module, float] | None:
        """(copy, decay) of a copy of the model inside the task that follows it as a moving average."""
        return None


class Build(Protocol):
    def __call__(self, config: Any, vocab_size: int, *, activation_checkpointing: bool = False) -> nn.Module: ...


class MakeTask(Protocol):
    def __call__(self, model: Any, stage: Any, run: RunConfig, tokenizer: Tokenizer | None) -> Task: ...


class Prepare(Protocol):
    def __call__(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Batch: ...


def nothing_copied(names: Collection[str], stage: StageConfig) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Finish:
    """What lies beside the weights of a model that has learnt to decide."""

    # (loaded model, texts that it has not seen, texts that it has learnt from, if they are at hand, and the stages in
    # which it did, as far as they are known) → contents by file
    files: Callable[[Any, list[str], Iterable[str] | None, Sequence[StageConfig]], dict[str, str]]
    mark: str  # the file by which one sees that this was done
    # (model folder, values by name) → contents by file with these in place of what was chosen; raises ValueError
    given: Callable[[Path, Mapping[str, float | None]], dict[str, str]]


@dataclass(frozen=True)
class Runtime:
    """What a family does with torch. Models of all families have ``config`` and ``vocab_size``."""

    # a fresh model, weights drawn from torch's generator; the trainer builds it on `meta` and draws each rank's part
    # alone, so each parameter needs a rule (`nn.initial.begin`): torch's usual layers and `nn.parallel` have theirs
    build: Build
    task: MakeTask  # tokenizer None: ids only, no text is known
    # (names of the model's parameters, stage) → those that begin the stage as copies of others, and of which
    copied: Callable[[Collection[str], Any], dict[str, str]] = nothing_copied
    prepare: Prepare | None = None  # what ``Task.prepare`` does, for the thread that reads the data; None: nothing
    writers: Callable[..., list[Any]] | None = None  # who continues texts, where writing is measured
    # (model, sequences, with or without EOS) → the exact loss of each token behind the first; None: there is none
    next_tokens: Callable[[Any, Batch], ScoredSlots] | None = None
    # (model, sequences, number of a draw) → losses whose weighted sum over a sequence bounds its −log p, given its
    # length, from above in the mean over draws; None: no bound is known
    bound: Callable[[Any, Batch, int], ScoredSlots] | None = None
    finish: Finish | None = None


def build(config: ModelConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> nn.Module:
    """A fresh model of the configuration's family."""
    from dualmask.families.registry import find

    runtime = find(config.family).load_runtime()
    return runtime.build(config, vocab_size, activation_checkpointing=activation_checkpointing)
