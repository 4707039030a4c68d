"""Checkpoints that are whole or not there: a sealed folder per step, renamed into place; the newest good one wins.

``OUTPUT/checkpoints/step-00000200/`` holds ``shards/`` (DeepSpeed's), ``state.json`` (where the run stands) and
``manifest.json``.
Methods that take an engine are collective, and so is ``newest``. The folder must be one that all ranks see.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dualmask import manifest
from dualmask.training.engine import StageEngine
from dualmask.training.errors import TrainingError

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
    ranks: dict[str, int]  # {"data": …, "tensor": …}
    split_axes: dict[str, int]  # parameter: axis that is split over the tensor-parallel ranks
    tracking: dict[str, Any]
    skipped: int = 0  # steps that were not finite so far
    earned: dict[str, Any] = field(default_factory=dict)  # of ``curriculum.Earned``
    watch: dict[str, Any] = field(default_factory=dict)  # of ``alarms.Watch``

    @staticmethod
    def read(folder: Path) -> TrainingState:
        """Raises ValueError, KeyError or TypeError for a file that this version did not write."""
        return TrainingState(**json.loads((folder / "state.json").read_text(encoding="utf-8")))


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, output: Path, keep_last: int) -> None:
        self.folder = output / "checkpoints"
        self.keep_last = keep_last

    def save(self, engine: StageEngine, state: TrainingState) -> Path:
        """Writes everything aside, seals it, renames it into place, and drops what exceeds ``keep_last``.

        Raises TrainingError if that fails (a full disk): the checkpoints before it are untouched.
        """
        aside, final = self.folder / _SAVING, self.folder / f"step-{state.step:08d}"
        try:
            if _rank() == 0:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                (aside / "state.json").write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
            _barrier()
            engine.save(aside)
            digests = _share_digests(aside)
            if _rank() == 0:
                manifest.seal(aside, digests)
                _replace(aside, final)
                _drop(self._all()[: -self.keep_last])
            _barrier()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            free = shutil.disk_usage(self.folder).free // 2**20
            raise TrainingError(
                f"checkpoint {final} could not be written, those before it are intact; "
                f"{free} MiB are free there: {reason}"
            ) from error
        return final

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


def _share_digests(folder: Path) -> dict[str, str]:
    """Digests of all files; each rank syncs and reads its share."""
    _barrier()
    mine = {}
    for name in manifest.files_of(folder)[_rank() :: _world()]:
        manifest.sync(folder / name)
        mine[name] = manifest.digest(folder / name)
    return {name: value for part in _everyones(mine) for name, value in part.items()}


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


def _everyones(mine: Any) -> list[Any]:
    everyone: list[Any] = [mine] * _world()
    if _world() > 1:
        dist.all_gather_object(everyone, mine)
    return everyone
