"""Moments of a training run at which a process is killed, drawn from a random seed so that each can be repeated."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

FILES = {"open", "os.mkdir", "os.remove", "os.rmdir"}  # Python's audit events
# by phase: the greatest number of events of an attempt before a moment. A step of the tiny run has about 60 calls of
# modules and 30 gradients, a checkpoint about 10 opened files or created folders and 2 renames.
# A stage change waits for a checkpoint, ends an engine, makes another one and reads its weights in about 200 parts.
EVENTS = {"forward": 400, "backward": 200, "saving": 30, "renaming": 4, "stage change": 400}


@dataclass(frozen=True)
class Moment:
    """Rank ``victim`` is killed −9 at event ``count`` of ``phase`` in one attempt, or ``delay`` seconds later."""

    phase: str
    count: int
    delay: float
    victim: int

    @staticmethod
    def draw(draw: random.Random, phase: str, ranks: int) -> Moment:
        delay = draw.choice([0.0, draw.random() * 0.02]) if phase in ("saving", "renaming") else 0.0
        return Moment(phase, draw.randint(1, EVENTS[phase]), delay, draw.randrange(ranks))

    @property
    def watcher(self) -> int:
        """The rank whose events are counted: for files the first rank, which creates and renames the folders."""
        return 0 if self.phase in ("saving", "renaming") else self.victim

    def __str__(self) -> str:
        return f"rank {self.victim} at {self.phase} {self.count} + {self.delay * 1000:.1f} ms"

    def arm(self, process: int | None) -> None:
        """In the watcher: starts to count its events. ``process``: the victim's, if that is another rank."""
        process = process or os.getpid()
        left = self.count
        lock = threading.Lock()  # a checkpoint may be written by a thread

        def event(*_: Any) -> None:
            nonlocal left
            with lock:
                left -= 1
                due = left == 0
            if due and self.delay:
                threading.Thread(target=self._kill, args=(process,), daemon=True).start()
            elif due:
                self._kill(process)

        if self.phase == "forward":
            _on_forward(event)
        elif self.phase == "backward":
            _on_gradients(event)
        elif self.phase == "stage change":
            _on_stage_changes(event)
        else:
            _on_files(
                {"os.rename"} if self.phase == "renaming" else {"open", "os.mkdir", "os.remove", "os.rmdir"}, event
            )

    def _kill(self, process: int) -> None:
        time.sleep(self.delay)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _on_forward(event: Callable[..., None]) -> None:
    """Before every call of a module."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    register_module_forward_pre_hook(event)


def _on_gradients(event: Callable[..., None]) -> None:
    """After every gradient for which DeepSpeed or our own engine has registered a hook."""
    from torch import Tensor

    register = Tensor.register_post_accumulate_grad_hook

    def registered(tensor: Tensor, hook: Callable[[Tensor], None]) -> Any:
        return register(tensor, lambda parameter: (event(), hook(parameter))[1])

    Tensor.register_post_accumulate_grad_hook = registered


def _on_stage_changes(event: Callable[..., None]) -> None:
    """Before each step of a change from one stage to the next, and before each part of its weights is read."""
    from dualmask.training.checkpoint import Checkpoints
    from dualmask.training.engine import StageEngine
    from dualmask.training.shards import ShardFolder
    from dualmask.training.trainer import Trainer

    changing = False

    def heard(kind: Any, name: str) -> None:
        method = getattr(kind, name)

        def called(*arguments: Any, **options: Any) -> Any:
            if changing:
                event()
            return method(*arguments, **options)

        setattr(kind, name, called)

    def change(trainer: Trainer, *arguments: Any) -> Any:
        nonlocal changing
        changing = True
        try:
            return next_stage(trainer, *arguments)
        finally:
            changing = False

    next_stage, Trainer._next_stage = Trainer._next_stage, change
    for kind, name in ((Checkpoints, "wait"), (StageEngine, "close"), (StageEngine, "__init__"), (ShardFolder, "part")):
        heard(kind, name)


def _on_files(names: set[str], event: Callable[..., None]) -> None:
    """Before a file or folder of the checkpoints is opened, created, removed or renamed."""

    def heard(name: str, arguments: tuple[Any, ...]) -> None:
        if name in names and any("/checkpoints/" in str(argument) for argument in arguments[:2]):
            event()

    sys.addaudithook(heard)
