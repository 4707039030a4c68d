"""What the README shows as printed is what the model of `make train` prints. Slow: it trains that model first, unless
`make train` has been run."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import examples
import pytest

from launcher import command

MODEL = examples.ROOT / "runs" / "quickstart"


@pytest.fixture(scope="module")
def trained() -> Path:
    if not (MODEL / "results.json").is_file():
        subprocess.run(["make", "train"], cwd=examples.ROOT, check=True)
    return MODEL


def test_the_readme_shows_what_is_printed() -> None:
    assert len(examples.with_output()) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("example", "shown"), examples.with_output())
def test_it_prints_that(
    example: str,
    shown: str,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(trained) if word == "runs/quickstart" else word for word in shlex.split(example)]
    assert command.run(words[1:]) == 0
    assert capsys.readouterr().out.strip() == shown
