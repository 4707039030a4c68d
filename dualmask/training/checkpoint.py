"""Checkpoints that are whole or not there: a sealed folder per step, renamed into place; the newest good one wins.

``OUTPUT/checkpoints/step-00000200/`` holds ``shards/`` and ``index.json`` (see shards.py), ``state.json`` (where the
run stands) and ``manifest.json``, which is written last. A step is held up only while tensors are copied: a thread
writes.
All methods are collective. The folder must be one that all ranks see.
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
from safetensors import SafetensorError

from dualmask.core import manifest
from dualmask.training.errors import TrainingError
from dualmask.training.shards import INDEX, Piece, ShardFolder, merge, write_index, write_pieces

_SAVING = ".saving"


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands: everything but the tensors."""

    step: int  # optimizer steps done, which is also the number of the next one
    stage_index: int  # stage whose engine wrote the shards
    cursor: dict[str, Any]  # of the batch source
    config: dict[str, Any]  # the resolved run configuration
    vocab_size: int
    data_digest: str
    ranks: dict[str, int]  # that wrote it: {"data": …, "tensor": …}; any others can read it
    tracking: dict[str, Any]
    skipped: int = 0  # steps that were not finite so far
    memory: dict[str, Any] = field(default_factory=dict)  # of the stage's task (``families.task.AfterStep``)

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

    def save(self, pieces: Sequence[Piece], state: TrainingState, updates: int) -> None:
        """Writes everything aside, seals it, renames it into place, and drops what exceeds ``keep_last``.

        pieces: copies, all ranks' together the whole; updates: of Adam. Returns before that is done, once the save
        before it is. Raises TrainingError if one of them failed (a full disk): checkpoints before it are untouched.
        """
        self.wait()
        if self._group is None and _world() > 1:
            self._group = dist.new_group(backend="gloo")  # the thread's collectives must not meet the training's
        self._writing = threading.Thread(target=self._try_write, args=(pieces, state, updates), daemon=True)
        self._writing.start()
        if not self._background:
            self.wait()

    def wait(self) -> None:
        """Until all that was saved is on the disk. Raises TrainingError if it could not be written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _try_write(self, pieces: Sequence[Piece], state: TrainingState, updates: int) -> None:
        final = self.folder / f"step-{state.step:08d}"
        try:
            self._write(final, pieces, state, updates)
        except OSError as error:
            reason = " ".join(str(error).split())
            self._error = TrainingError(
                f"checkpoint {final} could not be written, those before it are intact; {_free(self.folder)}: {reason}"
            )
        except Exception as error:  # a rank was lost, or a mistake of ours: not the thread's to judge
            self._error = error

    def _write(self, final: Path, pieces: Sequence[Piece], state: TrainingState, updates: int) -> None:
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
            _drop(self._all()[: -self.keep_last])

        first = _rank() == 0
        self._together(begin if first else None)
        written = self._together(write)
        self._together(end if first else None)

    def _together(self, action: Callable[[], Any] | None) -> list[Any]:
        """Every rank's result of ``action``. Raises OSError on all ranks where one failed: none waits for it."""
        result, trouble = None, None
        try:
            result = action() if action else None
        except (OSError, SafetensorError) as error:
            trouble = f"{error}"
        results = _everyones((result, trouble), self._group)
        if failed := [trouble for _, trouble in results if trouble]:
            raise OSError(failed[0])
        return [result for result, _ in results]

    def newest(self) -> Path | None:
        """The newest checkpoint whose every byte is as it was written. Broken ones are named and set aside."""
        for folder in reversed(self._all()):
            if (trouble := find_trouble(folder)) is None:
                return folder
            if _rank() == 0:
                print(f"checkpoint {folder} is set aside: {trouble}", file=sys.stderr, flush=True)
                folder.rename(_unused(folder.with_name(f"{folder.name}.broken")))
            _barrier()
        return None

    def start_over(self) -> None:
        """Sets all checkpoints aside, so that none is mistaken for one of the run that begins now."""
        if _rank() == 0 and self._all():
            self.folder.rename(_unused(self.folder.with_name("checkpoints.old")))
        _barrier()

    def _all(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix == "")


def find_trouble(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None. Collective: each rank reads its share of the files."""
    mine = manifest.problem(folder, _rank(), _world())
    if mine is None:
        try:
            TrainingState.read(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            mine = f"state.json cannot be read: {' '.join(str(error).split())}"
    return next((trouble for trouble in _everyones(mine) if trouble), None)


def _free(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(there).free // 2**20} MiB are free there"


def _kept_digest(file: Path) -> str:
    """Of a file that is on the disk for good."""
    manifest.sync(file)
    return manifest.digest(file)


def _replace(source: Path, target: Path) -> None:
    """A rename; a folder that stands at ``target`` (of an earlier life of the run) gives way first."""
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
    manifest.sync(target.parent)


def _drop(folders: Iterable[Path]) -> None:
    for folder in folders:
        (folder / manifest.NAME).unlink(missing_ok=True)  # from here on it does not count as a checkpoint
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


def _everyones(mine: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    everyone: list[Any] = [mine] * _world()
    if _world() > 1:
        dist.all_gather_object(everyone, mine, group)
    return everyone


def write_merged(source: Path, target: Path) -> None:
    """One checkpoint as a single process would have written it: makes the folder ``target``.

    Check the digests of ``source`` first. Raises OSError.
    """
    state, shards = TrainingState.read(source), ShardFolder(source)
    alone = dataclasses.replace(state, ranks={"data": 1, "tensor": 1})
    target.mkdir(parents=True)
    (target / "state.json").write_text(json.dumps(dataclasses.asdict(alone)), encoding="utf-8")
    write_index(target, write_pieces(target, 0, list(merge(shards))), tensor_size=1, updates=shards.updates)
    manifest.seal(target)
