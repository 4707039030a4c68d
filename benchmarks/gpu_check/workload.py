"""A stage's engine and its steps, in the process that measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.engines import build_engine, build_model, join
from benchmarks.gpu_check.setting import Setting
from benchmarks.runs import random_batch
from benchmarks.step_arms import STAGES, Case
from dualmask.curriculum import plan_at
from dualmask.training.engine import run_step

WARM_UP = 3
TEXTS = {"joint": 16, "span": 16}  # a stage whose step does many passes has fewer texts in it


class Workload:
    """``case`` under ZeRO-1, warm. Context manager."""

    def __init__(self, case: Case, zero: int = 1) -> None:
        join(timeout_seconds=600)
        self.case, self._run = case, case.run(zero)
        self.engine = build_engine(self._run, build_model(self._run, case.size.vocabulary))
        for number in range(WARM_UP):
            self.step(number)

    def step(self, number: int) -> None:
        run_step(self.engine, random_batch(self.case.size, number), plan_at(self._run.stages, number), micros=1)

    def passes(self, number: int) -> None:
        """Forward and backward of one micro-batch; a step must follow."""
        batch = random_batch(self.case.size, number).to(self.engine.device)
        self.engine.forward_backward(batch, plan_at(self._run.stages, number), last=True)

    def finish(self) -> None:
        self.engine.step(0.0)

    def __enter__(self) -> Workload:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()


def cases(setting: Setting, stages: Sequence[str] = STAGES) -> list[Case]:
    return [sized(Case(stage, setting.size)) for stage in stages]


def sized(case: Case) -> Case:
    texts = min(case.size.sequences, TEXTS.get(case.stage, case.size.sequences))
    return replace(case, size=replace(case.size, sequences=texts))
