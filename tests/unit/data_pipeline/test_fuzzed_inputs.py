"""Damaged inputs of every kind: no crash, no traceback, no loss in silence."""

from pathlib import Path

import pytest
from fuzzing import fuzzed

PEAK_MEGABYTES = 800
SCRIPT = Path(__file__).with_name("fuzzed_inputs.py")


@pytest.mark.parametrize(
    ("first", "stop"), [(0, 100), pytest.param(100, 500, marks=pytest.mark.slow)], ids=["100 inputs", "400 more"]
)
def test_damaged_inputs(first: int, stop: int, tmp_path: Path) -> None:
    results, errors, peak = fuzzed(SCRIPT, first, stop, tmp_path)
    assert errors == ""
    assert [line for line in results if line["wrong"]] == []
    assert sum(line["skipped"] > 0 for line in results) > 0.5 * len(results)  # most of the damage is seen
    assert peak < PEAK_MEGABYTES
