"""Damaged inputs of every kind: no crash, no traceback, no loss in silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzed_inputs.py")
PEAK_MEGABYTES = 800


@pytest.mark.parametrize(
    ("first", "stop"), [(0, 100), pytest.param(100, 500, marks=pytest.mark.slow)], ids=["100 inputs", "400 more"]
)
def test_damaged_inputs(first: int, stop: int, tmp_path: Path) -> None:
    folders = [str(SCRIPT.parents[3]), str(SCRIPT.parent)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(first), str(stop)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended by {done.returncode} in {lines[-1]}: {done.stderr[-2000:]}"
    assert done.stderr == ""
    results = [line for line in lines if "wrong" in line]
    assert [line for line in results if line["wrong"]] == []
    assert len(results) == stop - first
    assert sum(line["skipped"] > 0 for line in results) > 0.5 * len(results)  # most of the damage is seen
    assert lines[-1]["peak megabytes"] < PEAK_MEGABYTES
