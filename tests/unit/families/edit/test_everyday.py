"""`eval everyday`: its cases, the arithmetic of its figures with stub correctors, the suite on a real small model."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from dualmask.core.words import words_of
from dualmask.evaluation.report import find
from dualmask.families.edit.evaluate import everyday
from dualmask.families.edit.evaluate.everyday import CASES, SENTENCES, Case, Outcome, outcome_of, units
from dualmask.families.edit.evaluate.everyday_report import sentences
from dualmask.families.edit.infer.protect import protected_spans
from launcher import command

ROOT = Path(__file__).resolve().parents[4]
EVERY_CASE = everyday.read_cases(CASES)


def test_the_cases_are_many_short_and_of_every_kind() -> None:
    assert len(EVERY_CASE) == len({case.wrong for case in EVERY_CASE}) >= 150
    kinds = Counter(case.kind for case in EVERY_CASE)
    assert len(kinds) == 13
    assert min(kinds.values()) >= 10
    for case in EVERY_CASE:
        for sentence in (case.wrong, case.right):
            assert 5 <= len(sentence.split()) <= 14, sentence
            assert sentence == " ".join(sentence.split()).strip()
            assert protected_spans(sentence) == [], sentence
        assert case.right[-1] in ".?"
        assert case.right[0].isupper()


def test_each_case_has_one_error() -> None:
    for case in EVERY_CASE:
        distance = -outcome_of(Case("", case.right, case.right), case.wrong).nearer
        assert 1 <= distance <= 2, case  # two words: swapped


def test_clean_sentences_have_no_doubled_word_and_get_one() -> None:
    clean = everyday.read_sentences(SENTENCES)
    assert len(clean) == len(set(clean)) == 50
    assert everyday.doubled_rule(clean) == clean
    made = everyday.double_words(clean)
    assert made == everyday.double_words(clean)
    assert [case.right for case in made] == clean
    assert all(len(words_of(case.wrong)) == len(words_of(case.right)) + 1 for case in made)
    assert everyday.doubled_rule([case.wrong for case in made]) == clean


def test_the_cases_are_in_the_package() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert packed["dualmask.families.edit.evaluate"] == ["cases/*"]
    assert CASES.parent == SENTENCES.parent == Path(everyday.__file__).parent / "cases"


def test_units_are_words_and_marks_with_the_space_before_them() -> None:
    assert units("It's here, now.") == ["It's", " here", ",", " now", "."]
    assert units("It's here ,now .") == ["It's", " here", " ,", "now", " ."]
    assert units(" (a1 ") == ["(", "a", "1"]
    assert units("") == []


WRONG, RIGHT = "The dog are here .", "The dog is here."


@pytest.mark.parametrize(
    ("output", "nearer", "mark"),
    [
        (RIGHT, 2, "exact"),
        ("The dog is here .", 1, "better"),
        (WRONG, 0, "same"),
        ("The dog be here .", 0, "other"),
        ("The cat are here .", -1, "worse"),
        ("", -3, "worse"),
    ],
)
def test_an_outcome(output: str, nearer: int, mark: str) -> None:
    outcome = outcome_of(Case("agreement", WRONG, RIGHT), output)
    assert (outcome.nearer, outcome.mark) == (nearer, mark)
    assert outcome.better is (mark in ("exact", "better"))
    assert outcome.worse is (mark == "worse")
    assert outcome.unchanged is (mark == "same")


TWO = [Case("a", "one two tree.", "one two three."), Case("b", "one  two.", "one two.")]


def stub(texts: Sequence[str]) -> list[str]:
    """Mends the first case, spoils its clean twin, and mends one of two doubled words."""
    answers = {"one two tree.": "one two three.", "one two three.": "one three.", "red blue blue.": "red blue."}
    return [answers.get(text, text) for text in texts]


def test_figures_are_shares_of_the_cases() -> None:
    rows, outcomes = everyday.evaluate({"auto": stub, "keep": everyday.keep}, TWO, ["red blue.", "to do."])

    def figure(metric: str, method: str = "auto", **dimensions: str | None) -> tuple[float, int]:
        row = find(rows, metric=metric, method=method, **{"kind": None} | dimensions)
        assert row["lo"] <= row["value"] <= row["hi"]
        return row["value"], row["n"]

    expected = {"better": 0.5, "exact": 0.5, "worse": 0.0, "unchanged": 0.5}
    assert {metric: figure(metric) for metric in expected} == {name: (share, 2) for name, share in expected.items()}
    assert figure("better", kind="a") == (1.0, 1)
    assert figure("better", kind="b") == (0.0, 1)
    assert figure("clean_untouched") == (0.5, 2)
    assert figure("doubled_mended") == (0.5, 2)
    assert [figure(metric, "keep")[0] for metric in expected] == [0.0, 0.0, 0.0, 1.0]
    assert figure("clean_untouched", "keep") == (1.0, 2)
    shown = list(sentences(outcomes["auto"]))
    assert [line.split()[0] for line in shown] == ["exact", "same", "worse", "same", "exact", "same"]
    assert shown[0].endswith("one two tree. → one two three.")


def test_a_space_too_many_is_mended_exactly_or_not_at_all() -> None:
    assert outcome_of(TWO[1], TWO[1].right) == Outcome(TWO[1], TWO[1].right, 0)
    assert outcome_of(TWO[1], TWO[1].right).better


def test_the_rule_drops_the_second_of_two_equal_words() -> None:
    text = "The the file is is, is open open."
    assert everyday.doubled_rule([text, "so, so it it’s"]) == ["The file is, is open.", "so, so it it’s"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("a\tb\n", "line 1"),
        ("kind\twrong\tright\n", "no cases"),
        ("kind\twrong\tright\nx\ty\n", "line 2"),
        ("kind\twrong\tright\nx\ty\ty\n", "line 2"),
    ],
)
def test_files_that_are_no_cases_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "cases.tsv").write_text(content)
    with pytest.raises(ValueError, match=words):
        everyday.read_cases(tmp_path / "cases.tsv")
    (tmp_path / "words.txt").write_text("one two\none\n")
    with pytest.raises(ValueError, match="line 2: 'one'"):
        everyday.read_sentences(tmp_path / "words.txt")


def test_the_suite_as_a_person_calls_it(model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    options = ["--model", str(model_folder), "--rounds", "1", "--json", str(out), "--show"]
    assert command.run(["eval", "everyday", *options]) == 0
    result = json.loads(out.read_text())
    assert (result["suite"], result["rounds"]) == ("everyday", 1)
    assert find(result["rows"], metric="doubled_mended", method="doubled_rule")["value"] == 1.0
    assert find(result["rows"], metric="clean_untouched", method="doubled_rule")["value"] == 1.0
    assert find(result["rows"], metric="unchanged", method="keep")["value"] == 1.0
    assert {row["n"] for row in result["rows"] if "kind" not in row} == {len(EVERY_CASE), 50}
    shown = capfd.readouterr().out
    assert EVERY_CASE[0].wrong in shown
    assert "by kind of error" in shown
    assert command.run(["eval", "everyday", *options, "--data", str(tmp_path / "none.tsv")]) == 2
    assert "none.tsv: no such file" in capfd.readouterr().err
