"""Judges the weights while they are trained: measures the dev part of the data, knows the best, ends a stage early."""

# N texts

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dualmask.config.deepspeed import micro_batches
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.task import Measure
from dualmask.nn.parallel import mesh
from dualmask.training.engine import StageEngine
from dualmask.training.metrics import EvalRecord


@dataclass(frozen=True)
class Standing:
    """The evaluations of a stage so far; part of a checkpoint."""

    stage_index: int = -1
    metric: str = ""
    sequences: int = 0  # of the dev part: figures of other texts are not compared
    best: tuple[float, float] | None = None  # the figure and, where that is equal, ``dev_loss``: the more the better
    best_step: int | None = None  # steps done then: the number of its checkpoint
    stale: int = 0  # evaluations since

    def after(self, worth: tuple[float, float], step: int) -> Standing:
        """Behind an evaluation. What is not finite is never the best; of equals the first is."""
        if all(map(math.isfinite, worth)) and (self.best is None or worth > tuple(self.best)):
            return replace(self, best=worth, best_step=step, stale=0)
        return replace(self, stale=self.stale + 1)


class Judge:
    """``texts``: the sequences that are measured, the same on every rank; None: the run asks for no evaluation."""

    def __init__(self, run: RunConfig, texts: Batch | None) -> None:
        assert texts is not None or run.eval.every_steps is None
        self._run, self._settings, self._texts = run, run.eval, texts
        self._standing = Standing()

    @property
    def state(self) -> dict[str, Any]:
        """For a checkpoint; {} where nothing was measured."""
        return {} if self._standing == Standing() else asdict(self._standing)

    def restore(self, state: dict[str, Any]) -> None:
        self._standing = Standing(**state)

    @property
    def best_step(self) -> int | None:
        """Steps done at the best evaluation of the last stage, whose checkpoint is to be kept; None: there is none."""
        in_last_stage = self._standing.stage_index == len(self._run.stages) - 1
        return self._standing.best_step if self._settings.keep_best and in_last_stage else None

    def due(self, plan: StepPlan) -> bool:
        """Behind this step."""
        every = self._settings.every_steps
        return every is not None and ((plan.step + 1) % every == 0 or plan.is_last_of_stage)

    def judge(self, engine: StageEngine, plan: StepPlan) -> EvalRecord:
        """Collective; the same on every rank."""
        began = time.perf_counter()
        measure = engine.task.measure()
        figures = self._measured(engine, measure, _fixed(plan))
        asked = self._settings.metric
        metric = asked if asked in figures else measure.best
        self._compare(plan, metric, figures)
        patience = self._settings.patience
        return EvalRecord(
            step=plan.step,
            stage_index=plan.stage_index,
            stage=plan.stage.name,
            figures=figures,
            metric=metric,
            is_best=self._standing.best_step == plan.step + 1,
            ends_stage=patience is not None and self._standing.stale >= patience,
            seconds=time.perf_counter() - began,
        )

    def _compare(self, plan: StepPlan, metric: str, figures: dict[str, float]) -> None:
        here = Standing(plan.stage_index, metric, self._settings.sequences)
        same = replace(self._standing, best=None, best_step=None, stale=0) == here
        value = figures[metric] if self._run.family.dev_figures[metric] == "max" else -figures[metric]
        # F0.5 is 0 until the picker dares to delete: until then the loss says whether a stage gets on
        worth = (value, -figures[Measure.best])
        self._standing = (self._standing if same else here).after(worth, plan.step + 1)

    def _measured(self, engine: StageEngine, measure: Measure, plan: StepPlan) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        for batch, counts in self._batches(measure.texts_at_once):
            for name, part in engine.call(measure.sums, batch.to(engine.device), plan).items():
                part = part.double() if counts else torch.zeros_like(part, dtype=torch.float64)
                sums[name] = sums[name] + part if name in sums else part
        return measure.figures(_over_ranks(sums))

    def _batches(self, size: int | None) -> Iterator[tuple[Batch, bool]]:
        """This rank's texts, ``size`` at a time (None: a micro-batch), and whether they count.

        Every rank has equally many batches, as ZeRO-3 needs: who has run out of texts reads one that does not count.
        """
        assert self._texts is not None
        ranks = mesh.data_size()
        size = size or self._run.batch.sequences // ranks // micro_batches(self._run, ranks)
        own = self._texts.rows(slice(mesh.data_rank(), None, ranks))
        most = -(-len(self._texts.length) // ranks)
        for first in range(0, most, size):
            part = own.rows(slice(first, first + size))
            counts = len(part.length) > 0
            yield (part if counts else self._texts.rows(slice(0, 1))), counts


def _fixed(plan: StepPlan) -> StepPlan:
    """The plan by which a stage is judged, whatever the step: its end, and always the same random draws."""
    return StepPlan(0, plan.stage_index, plan.stage, plan.stage.steps - 1)


def _over_ranks(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over all texts, on the CPU of every rank, in one collective."""
    vector = torch.cat([value.flatten() for value in sums.values()])
    dist.all_reduce(vector)
    parts = (vector.cpu() / mesh.tensor_size()).split([value.numel() for value in sums.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(sums.items(), parts, strict=True)}
