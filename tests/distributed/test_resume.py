"""Where a run may go on from, and where not: its own newest checkpoint, another's by its path, a stage with a teacher.

What happens to runs that meet a fault stands in tests/faults.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import test_parity_span
import tiny
import torch
import warm

from dualmask.core import manifest
from dualmask.inference.loading import load
from dualmask.training.export import export

pytestmark = pytest.mark.distributed

CHECKPOINT = {"every_steps": 4, "keep_last": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, folder: Path) -> list[dict]:
    warm.train(2, tiny.write_config(folder, data, "whole", checkpoint=CHECKPOINT))
    return tiny.read_record(folder / "whole")


def test_finished_run_of_another_configuration(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    """It is neither "already complete" nor silently trained further: the key that differs is named."""
    config = tiny.write_config(folder, data, "whole", checkpoint=CHECKPOINT)
    attempt = warm.Ranks(2, config, "--set", "seed=4")
    assert attempt.codes() == [2, 2], attempt.output()
    assert "seed = 4 differs from 3" in attempt.output()
    assert "--resume never" in attempt.output()


def test_resume_from_a_path(uninterrupted: list[dict], data: Path, folder: Path) -> None:
    """A checkpoint given by its path, of another run folder: the rest of the record is the same."""
    config = tiny.write_config(folder, data, "branch", checkpoint={"every_steps": 100})
    oldest = min((folder / "whole" / "checkpoints").glob("step-*"))
    warm.train(2, config, "--resume", oldest)
    done = int(oldest.name.removeprefix("step-"))
    assert tiny.read_record(folder / "branch") == uninterrupted[done:]


def test_in_the_middle_of_a_stage_with_a_teacher(data: Path, folder: Path) -> None:
    """SpanFusionLM under ZeRO-3: the teacher goes on from where it stood, too. Inference never sees it."""
    what = {"model": test_parity_span.MODEL, "stages": test_parity_span.STAGES, "checkpoint": {"every_steps": 2}}
    first, second = (tiny.write_config(folder, data, name, **what) for name in ("span", "span-again"))
    settings = [f"--set={test_parity_span.EMA}", "--set=checkpoint.keep_last=9"]
    warm.train(2, first, *settings)
    middle = folder / "span" / "checkpoints" / "step-00000004"
    warm.train(2, second, *settings, "--resume", middle)
    record = tiny.read_record(folder / "span")
    assert [line["stage"] for line in record[2:]] == ["span"] * 5
    assert tiny.read_record(folder / "span-again") == record[4:]
    same = "export/model.safetensors"
    assert manifest.digest(folder / "span" / same) == manifest.digest(folder / "span-again" / same)
    shutil.rmtree(folder / "span" / "export")
    export(folder / "span", folder / "exported")  # from the newest checkpoint
    loaded = load(folder / "exported", "cpu", family="spanfusion")
    finished = load(folder / "span-again", "cpu", family="spanfusion")
    for mine, theirs in zip(loaded.model.parameters(), finished.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_in_the_middle_of_errors_of_words(data: Path, folder: Path) -> None:
    """Where every text has errors that were made in its words, and masks are told all that was deleted."""
    stages = copy.deepcopy(tiny.CONFIG["stages"][:3])
    mistakes = {"natural": {"share": 1.0, "rate_low": 0.2, "rate_high": 0.4}}
    stages[0] |= {"corrupted": 0.9, "corruption": mistakes}
    stages[2]["rollout"] = {"starts": {"corrupted": 1.0}, "told_deletions": 1.0, "corruption": mistakes}
    what = {"model": {"told_pieces": 2}, "stages": stages, "checkpoint": {"every_steps": 3, "keep_last": 9}}
    warm.train(2, tiny.write_config(folder, data, "words", **what))
    record = tiny.read_record(folder / "words")
    for done in (3, 12):
        config = tiny.write_config(folder, data, f"words-{done}", **what)
        warm.train(2, config, "--resume", folder / "words" / "checkpoints" / f"step-{done:08}")
        assert tiny.read_record(folder / f"words-{done}") == record[done:]
