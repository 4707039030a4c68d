"""docs/scaling.md is what its command writes."""

from pathlib import Path

import pytest

from dualmask.config.hardware import load_hardware
from dualmask.config.load import load_run
from launcher import scaling

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"


def test_the_smallest_plan_is_the_committed_one():
    path, hardware = scaling.CONFIGS[0], load_hardware(scaling.MAIN, scaling.HARDWARE)
    plan = "\n".join(scaling.section(path, load_run(path), hardware))
    assert plan in PAGE.read_text()


@pytest.mark.slow
def test_all_of_it():
    assert scaling.page() == PAGE.read_text()
