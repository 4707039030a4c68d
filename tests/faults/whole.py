"""The undisturbed runs with which runs that met a fault are compared, and the count of runs that lost nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import tiny
import warm

from dualmask.core import manifest


@dataclass
class Tally:
    """How often each fault was tried, and how often nothing was lost."""

    tried: dict[str, int] = field(default_factory=dict)
    survived: dict[str, int] = field(default_factory=dict)

    def __call__(self, fault: str, survived: bool = True, times: int = 1) -> None:
        self.tried[fault] = self.tried.get(fault, 0) + times
        self.survived[fault] = self.survived.get(fault, 0) + times * survived


@dataclass(frozen=True)
class Whole:
    """An undisturbed run, with which all others are compared."""

    config: Path
    output: Path

    @property
    def record(self) -> list[dict]:
        return tiny.read_record(self.output)

    def equals(self, output: Path) -> bool:
        """Whether the other run's record and weights are bit-equal."""
        file = "export/model.safetensors"
        return tiny.read_record(output) == self.record and manifest.digest(output / file) == manifest.digest(
            self.output / file
        )

    def copy(self, folder: Path) -> Path:
        """A copy of the finished run without its export, so that there is something left to do."""
        shutil.copytree(self.output, folder)
        shutil.rmtree(folder / "export")
        return folder


def whole_run(ranks: int, data: Path, folder: Path) -> Whole:
    config = tiny.write_config(folder, data, checkpoint={"every_steps": 2, "keep_last": 3})
    warm.train(ranks, config)
    whole = Whole(config, folder / "tiny")
    assert [line["step"] for line in whole.record] == list(range(tiny.STEPS))
    return whole
