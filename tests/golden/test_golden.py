"""A refactor changes no number: the record that was made before it comes out again, digit for digit.

On another processor or torch sums may differ in their last digits, and draws with them: there the first losses of each
run are compared to a relative 1e-4. A change of behaviour makes a new record, in a commit that says what changed, and
why: ``python tests/golden/record.py tests/golden/golden.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from record import fingerprint

HERE = Path(__file__).resolve().parent
PARTS = ("losses", "weights", "data", "commands", "eval", "plan")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In a process of its own: tests before it may have changed what libraries remember."""
    out = tmp_path_factory.mktemp("golden") / "golden.json"
    command = [sys.executable, str(HERE / "record.py"), str(out)]
    done = subprocess.run(command, env=tiny.environment(), cwd=tiny.ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(out.read_text()))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads((HERE / "golden.json").read_text()))


@pytest.mark.parametrize("part", PARTS)
def test_same_as_before(made: dict[str, Any], golden: dict[str, Any], part: str) -> None:
    if golden["machine"] != fingerprint():
        pytest.skip("another processor or torch than the record's: see test_first_losses")
    for name, before in golden[part].items():
        assert made[part][name] == before, f"{part}: {name}"
    assert made[part].keys() == golden[part].keys()


def test_first_losses(made: dict[str, Any], golden: dict[str, Any]) -> None:
    for name, steps in golden["losses"].items():
        for before, now in zip(steps[:5], made["losses"][name][:5], strict=True):
            assert now["total"] == pytest.approx(before["total"], rel=1e-4), f"{name}, stage {before['stage']}"
            assert now["keys"] == before["keys"]
