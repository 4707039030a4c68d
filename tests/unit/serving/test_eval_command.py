"""``dualmask eval SUITE`` as a person calls it."""

import json
from pathlib import Path

import pytest

from launcher import command

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def given(model_folder: Path, tmp_path: Path) -> list[str]:
    data = tmp_path / "texts.jsonl"
    data.write_text(json.dumps({"text": "The value of a name is the object that it is bound to. " * 20}) + "\n")
    return ["--model", str(model_folder), "--data", str(data)]


@pytest.mark.parametrize(
    ("suite", "metrics"),
    [
        ("reconstruction", {"restored", "exact", "picker_ahead"}),
        ("gaps", {"gap_f1", "length_error"}),
        ("quickstart", {"restored", "exact", "picker_ahead", "gap_f1", "length_error"}),
    ],
)
def test_suites_of_deletion(given: list[str], tmp_path: Path, capfd: Capture, suite: str, metrics: set[str]) -> None:
    options = ["--rates", "0.3", "--limit", "4", "--json", str(tmp_path / "out.json")]
    assert command.run(["eval", suite, *given, *options]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["suite"] == suite
    assert {row["metric"] for row in result["rows"]} == metrics
    assert {row["deleted"] for row in result["rows"]} == {0.3}
    assert "picker" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rebuilding",), "rebuilding"),
        (("gaps", "--rates", "0.3,2"), "--rates 0.3,2: give shares of tokens between 0 and 1"),
        (("gaps", "--filler", "/no/such/model"), "/no/such/model does not exist"),
        (("gaps", "--limit", "0"), "--limit"),
    ],
)
def test_what_is_wrong_is_one_line(given: list[str], capfd: Capture, arguments: tuple[str, ...], words: str) -> None:
    suite, *options = arguments
    assert command.run(["eval", suite, *given, *options]) == 2
    out, message = capfd.readouterr()
    assert out == ""
    assert message.count("\n") == 1
    assert words in message


def test_each_suite_teaches_its_own_options(capfd: Capture) -> None:
    assert command.run(["eval", "--help"]) == 0
    suites = capfd.readouterr().out
    for suite, option in (("reconstruction", "--filler"), ("generation", "--scorer"), ("span", "--at-once")):
        assert suite in suites
        assert command.run(["eval", suite, "--help"]) == 0
        page = capfd.readouterr().out
        assert option in page
        assert f"dualmask eval {suite} --model" in page
