"""One step of a stage: a folder of blocks, each made by one Ray task and followed by a record that it is whole.

Everything between two steps lies on disk, so that a task needs no more memory than its block and the driver holds names
and counts only. A killed build makes the blocks that have no record.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.files import write_atomically
from data_pipeline.progress import ProgressBar

Result = dict[str, Any]  # of one task, as JSON: counts and names
Function = Callable[..., Result]

_MADE_FROM = "made_from"
_SECONDS = "seconds.json"  # beside the folders
_IN_FLIGHT = 2  # tasks a core: the next one is there when one ends
_RETRIES = 5  # of a task whose process was killed


class Step:
    """The blocks in ``folder``; what another ``made_from`` has left there is removed."""

    def __init__(self, folder: Path, made_from: str) -> None:
        self.folder = folder
        try:
            before = (folder / _MADE_FROM).read_text()
        except OSError:
            before = None
        if before != made_from:
            discard(folder)
            folder.mkdir(parents=True)
            self._begin_seconds()
            write_atomically(folder / _MADE_FROM, made_from.encode())

    def _begin_seconds(self) -> None:
        """Forgets those of this step and of the steps behind it, which are run again, too."""
        before = itertools.takewhile(lambda item: item[0] != self.folder.name, seconds(self.folder.parent).items())
        _write_seconds(self.folder.parent, dict(before))

    def record(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def result(self, key: str) -> Result:
        result: Result = json.loads(self.record(key).read_bytes())
        return result

    def run(self, function: Function, tasks: Mapping[str, Mapping[str, Any]], **shared: Any) -> Iterator[Result]:
        """Runs ``function(folder, key, **arguments, **shared)`` for each key of ``tasks`` that has no record.

        Returns the results of all tasks in their order. The function writes its files into ``folder``, atomically.
        """
        start = time.monotonic()
        missing = [key for key in tasks if not self.record(key).exists()]
        with ProgressBar(self.folder.name, len(tasks)) as bar:
            bar.advance_to(len(tasks) - len(missing))
            jobs = ((self.folder, key, tasks[key]) for key in missing)
            for done, _ in enumerate(_finished(function, jobs, shared), len(tasks) - len(missing) + 1):
                bar.advance_to(done)
        took = seconds(self.folder.parent)
        took[self.folder.name] = took.get(self.folder.name, 0.0) + time.monotonic() - start
        _write_seconds(self.folder.parent, took)
        return map(self.result, tasks)


def seconds(work: Path) -> dict[str, float]:
    """How long each step in ``work`` took, without what a build that was killed had not finished."""
    try:
        found: dict[str, float] = json.loads((work / _SECONDS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _write_seconds(work: Path, took: Mapping[str, float]) -> None:
    write_atomically(work / _SECONDS, json.dumps(took).encode())


def discard(folder: Path) -> None:
    """Removes a step. A build that is killed meanwhile does not take the rest for whole."""
    (folder / _MADE_FROM).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _finished(function: Function, jobs: Iterable[tuple[Any, ...]], shared: dict[str, Any]) -> Iterator[None]:
    """Runs ``jobs`` on the cluster, a bounded number at a time; yields at the end of each."""
    import ray

    remote = ray.remote(max_retries=_RETRIES)(make_block)
    limit = _IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
    common = ray.put(shared)
    running: list[Any] = []
    try:
        for job in jobs:
            if len(running) >= limit:
                ended, running = ray.wait(running)
                yield from ray.get(ended)
            running.append(remote.remote(function, *job, common))
        while running:
            ended, running = ray.wait(running)
            yield from ray.get(ended)
    finally:
        for task in running:  # after an error: what is left of them has no use
            ray.cancel(task)


def make_block(
    function: Function, folder: Path, key: str, arguments: Mapping[str, Any], shared: Mapping[str, Any]
) -> None:
    """Runs in Ray's processes: one task, then its record."""
    result = function(folder, key, **arguments, **shared)
    write_atomically(folder / f"{key}.json", json.dumps(result).encode())
