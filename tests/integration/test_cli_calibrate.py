"""`dualmask calibrate --set`: thresholds by hand, in a folder whose digests are right afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dualmask.core import manifest
from dualmask.families.edit.infer.operating_point import Decision, OperatingPoint
from launcher import command


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def test_thresholds_are_set_by_hand(folder: Path) -> None:
    options = ("calibrate", "--model", str(folder))
    assert command.run([*options, "--set", "edit_threshold=0.4", "--set", "preference=2"]) == 0
    assert command.run([*options, "--set", "wording_threshold=0.97"]) == 0
    expected = OperatingPoint(edit_threshold=0.4, preference=2.0, wording_threshold=0.97)
    assert Decision.read(folder).chosen == expected
    assert manifest.problem(folder) is None
    assert command.run([*options, "--set", "preference=none"]) == 0
    assert Decision.read(folder).chosen.preference is None


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((), "nothing to choose by: give --data with right texts, or --set NAME=VALUE"),
        (("edit_threshold",), "--set edit_threshold: give NAME=VALUE with a number"),
        (("edit_threshold=often",), "--set edit_threshold=often: give NAME=VALUE with a number"),
        (("edit_threshold=2",), "edit threshold 2.0"),
        (("edit_threshold=none",), "edit_threshold none"),
        (("edits=0.5",), "threshold edits is not possible: give one of gate_threshold, edit_threshold"),
    ],
)
def test_what_cannot_be_set_is_said(
    folder: Path, values: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    options = [word for value in values for word in ("--set", value)]
    assert command.run(["calibrate", "--model", str(folder), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
