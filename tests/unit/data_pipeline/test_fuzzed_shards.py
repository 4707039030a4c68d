"""Damaged and forged shards: no crash, no traceback, no code run, each named by ``verify`` or by the reader."""

from pathlib import Path

import pytest
from fuzzing import fuzzed

PEAK_MEGABYTES = 600
SCRIPT = Path(__file__).with_name("fuzzed_shards.py")


@pytest.mark.parametrize(
    ("first", "stop"), [(0, 150), pytest.param(150, 1000, marks=pytest.mark.slow)], ids=["150 shards", "850 more"]
)
def test_damaged_and_forged_shards(first: int, stop: int, tmp_path: Path) -> None:
    """Of each folder all good rows are read, and the bad ones counted."""
    results, errors, peak = fuzzed(SCRIPT, first, stop, tmp_path)
    assert [line for line in results if line["wrong"]] == []
    assert sum(line["lost"] for line in results) > 0.8 * len(results)
    assert all(line.startswith("quarantined: member ") for line in errors.splitlines())
    assert peak < PEAK_MEGABYTES
