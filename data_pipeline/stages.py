"""Reuse of finished stages of a build: each stage leaves a record of its inputs."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.files import write_atomically
from data_pipeline.steps import discard
from dualmask.config.load import flatten

log = logging.getLogger(__name__)

Inputs = dict[str, Any]

WORK_FOLDER = ".work"  # of an output: what later builds need


def digest(inputs: Inputs) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass
class Stages:
    """The stages of the build in ``folder``; ``seconds`` holds the durations of the stages that ran."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, inputs: Inputs, outputs: Sequence[Path], work: Callable[[], None]) -> None:
        """Calls ``work``, which makes ``outputs``, unless they were already made from the same ``inputs``.

        What an earlier run of ``work`` has left in the folder ``name`` is used again only if that run did not end.
        """
        inputs = json.loads(json.dumps(inputs))
        if reason := self._reason(name, inputs, outputs):
            log.info("%s: %s", name, reason)
            if self._record(name).exists():
                discard(self.folder / name)
                self._record(name).unlink()
            start = time.monotonic()
            work()
            self.seconds[name] = time.monotonic() - start
            write_atomically(self._record(name), json.dumps(inputs, indent=1).encode())

    def is_done(self, name: str, inputs: Inputs, outputs: Sequence[Path]) -> bool:
        """Whether ``run`` would have nothing to do."""
        return self._reason(name, json.loads(json.dumps(inputs)), outputs) is None

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _reason(self, name: str, inputs: Inputs, outputs: Sequence[Path]) -> str | None:
        """Why the stage must run; None if it need not."""
        try:
            before = json.loads(self._record(name).read_bytes())
        except (OSError, ValueError):
            return "building"
        if before != inputs:
            old, new = flatten(before), flatten(inputs)
            changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            return "rebuilding, changed: " + ", ".join(_change(key, old.get(key), new.get(key)) for key in changed)
        if missing := [path.name for path in outputs if not path.exists()]:
            return f"rebuilding, missing: {', '.join(missing)}"
        return None


def _change(key: str, old: Any, new: Any) -> str:
    """``key old → new``; only the key if a value is a digest, which tells a reader nothing."""
    return key if any(len(str(value)) > 40 for value in (old, new)) else f"{key} {old} → {new}"
