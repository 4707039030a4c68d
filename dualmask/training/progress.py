"""Display of a run's progress: a bar on a terminal, otherwise a line every ten seconds.

The time that is left is the planned cost of the remaining steps times the seconds that a unit of it has taken so far:
later stages have steps that cost several times as much as those of the first, and rounds are added within a stage.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate

from tqdm import tqdm

from dualmask.training.metrics import EvalRecord, StepRecord

LINE_SECONDS = 10.0
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
SMOOTHING = 0.1  # share of the newest step in a smoothed figure


def equal_cost(step: int) -> float:
    return 1.0


class Progress:
    def __init__(
        self,
        first_step: int,
        total_steps: int,
        shown: Sequence[str] = (),
        *,
        cost: Callable[[int], float] = equal_cost,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """shown: losses that people see, beside the total. cost: of a step, in any unit."""
        self._shown = ("total", *shown)
        self._costs = [cost(step) for step in range(total_steps)]
        self._cost_from = [*accumulate(reversed(self._costs), initial=0.0)][::-1]  # of step n and all behind it
        self._spent, self._clock, self._began = 0.0, clock, clock()
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            disable=not self._terminal,
            dynamic_ncols=True,
            unit="step",
            bar_format=BAR,
        )
        self._total_steps = total_steps
        self._last_line = -math.inf
        self._rate = 0.0  # tokens per second, smoothed
        self._mfu = 0.0  # smoothed; 0: not known
        self._dev = ""  # the newest figure of the dev part

    def on_step(self, record: StepRecord) -> None:
        self._rate = _smoothed(self._rate, record.tokens_per_second)
        self._mfu = _smoothed(self._mfu, record.mfu or 0.0)
        self._spent += self._costs[record.step]
        done = record.step + 1
        if self._terminal:
            self._bar.set_description_str(record.stage, refresh=False)
            self._bar.set_postfix_str(f"ETA {self._eta(done)} {self._figures(record)}", refresh=False)
            self._bar.update(done - self._bar.n)  # a stage that ended early leaves steps out
            return
        now = self._clock()
        if now - self._last_line >= LINE_SECONDS or done == self._total_steps:
            self._last_line = now
            position = f"stage {record.stage} step {done}/{self._total_steps}"
            print(f"{position} {self._figures(record)} ETA {self._eta(done)}", file=sys.stderr, flush=True)

    def seconds_left(self, done: int) -> float:
        """Behind ``done`` steps."""
        return (self._clock() - self._began) / self._spent * self._cost_from[done]

    def on_eval(self, record: EvalRecord) -> None:
        self._dev = f" {record.metric} {record.value:.3f}{' (best)' if record.is_best else ''}"

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        self._bar.close()

    def _figures(self, record: StepRecord) -> str:
        losses = " ".join(f"{name} {record.losses[name]:.3f}" for name in self._shown if name in record.losses)
        mfu = f" MFU {self._mfu:.1%}" if self._mfu else ""
        return f"{self._rate:,.0f} tok/s{mfu} {losses}{self._dev}"

    def _eta(self, done: int) -> str:
        return str(tqdm.format_interval(self.seconds_left(done)))


def _smoothed(before: float, newest: float) -> float:
    return before + (newest - before) * (SMOOTHING if before else 1.0)
