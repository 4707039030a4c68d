"""Atomic checkpoints: one sealed folder per step, renamed into place once complete; a run resumes from the newest.

``OUTPUT/checkpoints/step-00000200/`` holds ``shards/`` and ``index.json`` (see shards.py), ``state.json`` (the state of
the run) and ``manifest.json``, which is written last. Training waits only while tensors are copied; a thread writes.
All methods are collective. The folder must be on a file system that all ranks see.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dualmask.core import manifest
from dualmask.training import shards
from dualmask.training.errors import TrainingError
from dualmask.training.shards import INDEX, Piece, ShardFolder, write_index, write_pieces

_SAVING = ".saving"


@dataclass(frozen=True)
class TrainingState:
    """The state of a run, except for its tensors."""

    step: int  # the number of the next one: optimizer steps done, and those that ended stages have left out
    stage_index: int  # the stage whose engine wrote the shards
    cursor: dict[str, Any]  # of the batch source
    config: dict[str, Any]  # the resolved run configuration
    vocab_size: int
    data_digest: str
    ranks: dict[str, int]  # numbers of ranks that wrote it: {"data": …, "tensor": …}; any other numbers can read it
    tracking: dict[str, Any]
    skipped: int = 0  # steps skipped so far because a loss or gradient was not finite
    memory: dict[str, Any] = field(default_factory=dict)  # of the stage's task (``families.task.AfterStep``)
    judged: dict[str, Any] = field(default_factory=dict)  # the best so far (``judge.Standing``)

    @staticmethod
    def read(folder: Path) -> TrainingState:
        """Raises ValueError, KeyError or TypeError for a file that this version did not write."""
        return TrainingState(**json.loads((folder / "state.json").read_text(encoding="utf-8")))


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, output: Path, keep_last: int, *, background: bool = True) -> None:
        self.folder = output / "checkpoints"
        self.keep_last = keep_last
        self._background = background
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None
        self._group: dist.ProcessGroup | None = None

    def at(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(self, pieces: Sequence[Piece], state: TrainingState, updates: int, *, spared: int | None = None) -> None:
        """Writes a temporary folder, seals it, renames it into place, and removes all but the last ``keep_last``.

        spared: step of one that is kept beside these.

        pieces: copies of this rank's part of the tensors; updates: how many the optimizer has made. Waits for the
        previous save, but not for this one. Raises TrainingError if the previous save failed (for instance, on a full
        disk); earlier checkpoints are then intact.
        """
        self.wait()
        if self._group is None and _world() > 1:
            self._group = dist.new_group(backend="gloo")  # the thread's collectives must not mix with those of training
        self._writing = threading.Thread(target=self._try_write, args=(pieces, state, updates, spared), daemon=True)
        self._writing.start()
        if not self._background:
            self.wait()

    def wait(self) -> None:
        """Returns when everything is on the disk. Raises TrainingError if a checkpoint could not be written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _try_write(self, pieces: Sequence[Piece], state: TrainingState, updates: int, spared: int | None) -> None:
        final = self.at(state.step)
        try:
            self._write(final, pieces, state, updates, spared)
        except OSError as error:
            reason = " ".join(str(error).split())
            self._error = TrainingError(
                f"checkpoint {final} could not be written, those before it are intact; {_free(self.folder)}: {reason}"
            )
        except Exception as error:  # a rank was lost, or a bug: raised by ``wait`` in the main thread
            self._error = error

    def _write(
        self, final: Path, pieces: Sequence[Piece], state: TrainingState, updates: int, spared: int | None
    ) -> None:
        aside = self.folder / _SAVING

        def begin() -> None:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            (aside / "state.json").write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")

        def write() -> tuple[list[dict[str, Any]], dict[str, str]]:
            entries = write_pieces(aside, _rank(), pieces)
            files = {entry["file"] for entry in entries}
            return entries, {name: _kept_digest(aside / name) for name in files}

        def end() -> None:
            entries = (entry for part, _ in written for entry in part)
            write_index(aside, entries, tensor_size=state.ranks["tensor"], updates=updates)
            digests = {name: _kept_digest(aside / name) for name in ("state.json", INDEX)}
            manifest.seal(aside, digests | {name: value for _, part in written for name, value in part.items()})
            _replace(aside, final)
            others = [folder for folder in self._all() if spared is None or folder != self.at(spared)]
            _drop(others[: -self.keep_last])

        first = _rank() == 0
        self._on_all_ranks(begin if first else None)
        written = self._on_all_ranks(write)
        self._on_all_ranks(end if first else None)

    def _on_all_ranks(self, action: Callable[[], Any] | None) -> list[Any]:
        """Every rank's result of ``action``. If it fails on one rank, raises OSError on all, so that none waits."""
        result, failure = None, None
        try:
            result = action() if action else None
        except OSError as error:
            failure = f"{error}"
        results = _all_gather((result, failure), self._group)
        if failed := [failure for _, failure in results if failure]:
            raise OSError(failed[0])
        return [result for result, _ in results]

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint. Damaged ones are reported and renamed to ``….broken``."""
        for folder in reversed(self._all()):
            if (damage := find_trouble(folder)) is None:
                return folder
            if _rank() == 0:
                print(f"checkpoint {folder} is set aside: {damage}", file=sys.stderr, flush=True)
                folder.rename(_unused(folder.with_name(f"{folder.name}.broken")))
            _barrier()
        return None

    def start_over(self) -> None:
        """Renames the folder of all checkpoints, so that none is mistaken for one of the run that begins now."""
        if _rank() == 0 and self._all():
            self.folder.rename(_unused(self.folder.with_name("checkpoints.old")))
        _barrier()

    def _all(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix == "")


def find_trouble(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder; None if nothing. Collective: each rank reads its share of the files."""
    own_problem = manifest.problem(folder, _rank(), _world())
    if own_problem is None:
        try:
            TrainingState.read(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            own_problem = f"state.json cannot be read: {' '.join(str(error).split())}"
    return next((problem for problem in _all_gather(own_problem) if problem), None)


def _free(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(existing).free // 2**20} MiB are free there"


def _kept_digest(file: Path) -> str:
    """The digest of a file, after it is synced to the disk."""
    manifest.sync(file)
    return manifest.digest(file)


def _replace(source: Path, target: Path) -> None:
    """Renames a folder; one that already exists at ``target`` (from before a restart) is removed first."""
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
    manifest.sync(target.parent)


def _drop(folders: Iterable[Path]) -> None:
    for folder in folders:
        (folder / manifest.NAME).unlink(missing_ok=True)  # without its manifest it no longer counts as a checkpoint
        shutil.rmtree(folder)


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number, candidate = number + 1, path.with_name(f"{path.name}-{number}")
    return candidate


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _all_gather(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The ``value`` of every rank, in order of rank."""
    values: list[Any] = [value] * _world()
    if _world() > 1:
        dist.all_gather_object(values, value, group)
    return values


def write_merged(source: Path, target: Path) -> None:
    """Writes the checkpoint ``source`` to the new folder ``target`` as a single process would have written it.

    The caller has checked the digests of ``source``. Raises OSError.
    """
    merged = dataclasses.replace(TrainingState.read(source), ranks={"data": 1, "tensor": 1})
    target.mkdir(parents=True)
    (target / "state.json").write_text(json.dumps(dataclasses.asdict(merged)), encoding="utf-8")
    shards.write_merged(ShardFolder(source), target)
    manifest.seal(target)
