"""Display of a run's progress: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from dualmask.training.metrics import EvalRecord, StepRecord

LINE_SECONDS = 10.0


class Progress:
    def __init__(self, first_step: int, total_steps: int, shown: Sequence[str] = ()) -> None:
        """shown: losses that people see, beside the total."""
        self._shown = ("total", *shown)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps, initial=first_step, disable=not self._terminal, dynamic_ncols=True, unit="step"
        )
        self._total_steps = total_steps
        self._began, self._first_step = time.monotonic(), first_step
        self._last_line = -LINE_SECONDS
        self._rate = 0.0  # tokens per second, smoothed
        self._dev = ""  # the newest figure of the dev part

    def on_step(self, record: StepRecord) -> None:
        self._rate += (record.tokens_per_second - self._rate) * (0.1 if self._rate else 1.0)
        if self._terminal:
            self._bar.set_description_str(record.stage, refresh=False)
            self._bar.set_postfix_str(self._figures(record), refresh=False)
            self._bar.update(record.step + 1 - self._bar.n)  # a stage that ended early leaves steps out
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS or record.step + 1 == self._total_steps:
            self._last_line = now
            position = f"stage {record.stage} step {record.step + 1}/{self._total_steps}"
            print(
                f"{position} {self._figures(record)} ETA {self._eta(record.step + 1, now)}", file=sys.stderr, flush=True
            )

    def on_eval(self, record: EvalRecord) -> None:
        self._dev = f" {record.metric} {record.value:.3f}{' (best)' if record.is_best else ''}"

    def on_stage_end(self, stage_index: int, stage: str, texts: dict[str, str]) -> None:
        pass

    def close(self, status: str) -> None:
        self._bar.close()

    def _figures(self, record: StepRecord) -> str:
        losses = " ".join(f"{name} {record.losses[name]:.3f}" for name in self._shown if name in record.losses)
        return f"{self._rate:,.0f} tok/s {losses}{self._dev}"

    def _eta(self, done: int, now: float) -> str:
        seconds = (now - self._began) / max(done - self._first_step, 1) * (self._total_steps - done)
        return tqdm.format_interval(seconds)
