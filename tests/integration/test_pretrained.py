"""The model that comes with the package: what the README shows of it, its size and its card."""

from __future__ import annotations

import re

import examples
import pytest

from dualmask.core import manifest
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import Writer
from dualmask.inference.folder import PRETRAINED, WEIGHTS
from dualmask.inference.loading import load
from launcher import command

SHOWN = re.findall(r'^dualmask auto "(.*)"\n +→ (.*)$', (examples.ROOT / "README.md").read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(load(PRETRAINED, "cpu"))


@pytest.mark.parametrize(("wrong", "right"), SHOWN)
def test_what_the_readme_shows(wrong: str, right: str, writer: Writer) -> None:
    assert writer.run([TextRequest(wrong, "auto", options={"rounds": 8})])[0].output == right
    assert writer.run([TextRequest(right, "auto", options={"rounds": 8})])[0].output == right, "and it stays so"


def test_some_are_shown() -> None:
    assert len(SHOWN) >= 4


def test_no_model_needs_to_be_named(capfd: pytest.CaptureFixture[str]) -> None:
    wrong, right = SHOWN[0]
    assert command.run(["auto", wrong]) == 0
    assert capfd.readouterr().out.strip() == right


def test_size_digest_and_card() -> None:
    assert (PRETRAINED / WEIGHTS).stat().st_size < 20e6
    assert sum(file.stat().st_size for file in PRETRAINED.iterdir()) < 20 * 2**20
    assert manifest.problem(PRETRAINED) is None
    assert manifest.digest(PRETRAINED / WEIGHTS) in (PRETRAINED / "README.md").read_text(encoding="utf-8")
