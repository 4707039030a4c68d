"""What of a batch is prepared ahead of its step: in the thread that reads the data, or in processes beside it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import torch

from data_pipeline.reader import Pending
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan, plan_at, total_steps
from dualmask.families import registry
from dualmask.families.task import Prepare


@dataclass
class Ahead:
    """What the reader's thread does with its batches, of which the first is for step ``first``.

    A batch that was in the queue when a stage ended early is for another step than was thought; that prepares it anew.
    """

    run: RunConfig
    first: int
    tokenizer: Tokenizer
    steps_without_batch: Callable[[], int] = lambda: 0  # so far, since the first
    workers: Workers | None = None  # None: the thread does it itself

    def __call__(self, number: int, batch: Batch) -> Batch | Pending:
        prepare = self.run.family.load_runtime().prepare
        step = self.first + number + self.steps_without_batch()
        if prepare is None or step >= total_steps(self.run.stages):
            return batch
        plan = plan_at(self.run.stages, step)
        return prepare(batch, plan, self.tokenizer) if self.workers is None else self.workers.prepare(batch, plan)

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()


class Workers:
    """Processes that prepare batches, several at a time. They end with the process that made them, however it ends."""

    def __init__(self, number: int, family: str, tokenizer: Path) -> None:
        """tokenizer: the file of it."""
        self._pool = ProcessPoolExecutor(number, get_context("spawn"), _begin, (family, tokenizer))
        for _ in range(number):
            self._pool.submit(int)  # makes a process begin: they read their libraries while the model is made

    def prepare(self, batch: Batch, plan: StepPlan) -> Pending:
        # as bytes: tensors of their own accord would travel as open files, of which a process may have few
        future = self._pool.submit(_prepare, pickle.dumps((batch, plan)))
        return lambda: pickle.loads(future.result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_known: tuple[Prepare, Tokenizer]  # of a worker


def _begin(family: str, tokenizer: Path) -> None:
    global _known
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent to all processes of a job, of which the first decides what follows
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    prepare = registry.find(family).load_runtime().prepare
    assert prepare is not None
    _known = prepare, Tokenizer(tokenizer)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _prepare(given: bytes) -> bytes:
    batch, plan = pickle.loads(given)
    prepare, tokenizer = _known
    return pickle.dumps(prepare(batch, plan, tokenizer))
