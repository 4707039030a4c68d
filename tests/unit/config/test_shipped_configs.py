"""Every file in configs/ is complete and loads."""

from pathlib import Path

import pytest

from dualmask.config.load import load_build, load_run

ROOT = Path(__file__).parents[3] / "configs"
RUNS = sorted(ROOT.glob("*.yaml"))
DATA = sorted((ROOT / "data").glob("*.yaml"))


def test_there_are_configurations():
    assert RUNS
    assert DATA


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_run_configuration_loads(path):
    assert load_run(path, []).name


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.name)
def test_data_configuration_loads(path):
    assert load_build(path).output
