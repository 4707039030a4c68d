from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from whole import Tally, Whole, whole_run

from dualmask.evaluation import report

TALLY = pytest.StashKey["Tally"]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash.setdefault(TALLY, Tally())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """In one process."""
    return whole_run(1, data, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """On two ranks."""
    return whole_run(2, data, tmp_path_factory.mktemp("pair"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The counts as a table, which docs/faults.md shows, and as a result file if one is requested."""
    tally = config.stash.get(TALLY, None)
    if tally is None:
        return
    rows = [{"fault": fault, "survived": tally.survived[fault], "tried": tried} for fault, tried in tally.tried.items()]
    for row in rows:
        terminalreporter.write_line(f"| {row['fault']} | {row['survived']}/{row['tried']} |")
    if path := config.getoption("faults_report"):
        report.write(path, "faults", rows)
