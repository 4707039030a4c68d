"""`eval gec`: edits of words, the arithmetic of its figures, who else corrects, the suite on a real small model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dualmask.evaluation.report import find
from dualmask.families.edit.evaluate import gec, gec_model
from dualmask.families.edit.evaluate.gec import Sentence, agreement, gained, word_edits, words_like
from dualmask.families.edit.evaluate.speller import speller
from dualmask.inference.loading import Loaded
from launcher import command

WRONG = "He go to the the school yesterday ."
SENTENCE = Sentence(WRONG, ("He went to school yesterday .", "He goes to the school ."))
LINES = [
    {"text": WRONG, "references": list(SENTENCE.references)},
    {"text": "It is god .", "references": ["It is good ."]},
    {"text": "I like it very much .", "references": ["I like it very much ."]},
    {"text": "The dogs is here now .", "references": ["The dogs are here now .", "The dog is here now ."]},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "learners.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def test_what_is_changed_without_a_word_between_is_one_edit() -> None:
    assert word_edits(words("a b c d"), words("a x y d")) == {(1, 3, ("x", "y"))}
    assert word_edits(words("a b c d"), words("a x c d y")) == {(1, 2, ("x",)), (4, 4, ("y",))}
    assert word_edits(words("a b"), words("a x y z b")) == {(1, 1, ("x", "y", "z"))}
    assert word_edits(words("a b"), words("a b")) == set()


def test_the_reference_counts_that_agrees_most() -> None:
    assert agreement(SENTENCE, "He goes to the the school yesterday .") == (1, 1, 3)
    assert agreement(SENTENCE, "He went to the the school yesterday .") == (1, 1, 2)
    assert agreement(SENTENCE, SENTENCE.text) == (0, 0, 2)  # that with the fewest edits
    assert agreement(SENTENCE, SENTENCE.references[1]) == (3, 3, 3)


def test_marks_are_set_apart_where_the_sentences_have_them_apart() -> None:
    sentence = Sentence("Mr. Li goes home .", ("Mr. Li went home .",))
    assert words_like("Mr. Li went home.", sentence) == words("Mr. Li went home .")
    assert words_like("Mr. Li went home ...", sentence) == words("Mr. Li went home ...")
    assert gained(sentence, "Mr. Li went home.") == 1
    assert gained(sentence, "Mr. Li go .") == -1


def test_figures_of_methods() -> None:
    sentences = [Sentence(line["text"], tuple(line["references"])) for line in LINES]
    outputs = {
        "keep": [sentence.text for sentence in sentences],
        "right": [sentence.references[0] for sentence in sentences],
        "mixed": [SENTENCE.references[1], "It was god .", sentences[2].text, sentences[3].text],
    }
    rows = gec.evaluate(outputs, sentences)

    def figures(method: str) -> dict[str, float]:
        found = {row["metric"]: row for row in rows if row["method"] == method}
        assert all(row["lo"] <= row["value"] + 1e-9 and row["value"] <= row["hi"] + 1e-9 for row in found.values())
        assert {row["n"] for row in found.values()} == {4}
        return {name: row["value"] for name, row in found.items()}

    keep, right, mixed = figures("keep"), figures("right"), figures("mixed")
    assert (right["f05"], right["precision"], right["recall"], right["better"], right["worse"]) == (1, 1, 1, 0.75, 0)
    assert (keep["f05"], keep["precision"], keep["recall"], keep["gleu_gain"]) == (0, 1, 0, 0)
    assert right["gleu_gain"] == pytest.approx(right["gleu"] - keep["gleu"])
    assert right["gleu"] > mixed["gleu"] > keep["gleu"]
    assert (mixed["better"], mixed["worse"]) == (0.25, 0.25)
    assert mixed["precision"] == pytest.approx(3 / 4)
    assert mixed["recall"] == pytest.approx(3 / 5)


def test_the_speller_mends_unknown_words_alone() -> None:
    assert speller()(["I recieve the the Lettre, and goverment helps !"]) == [
        "I receive the the Lettre, and government helps !"
    ]


def test_a_missing_speller_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "symspellpy", None)
    with pytest.raises(ValueError, match=r"pip install 'dualmask\[english\]'"):
        speller()


def test_no_sentence_is_corrected_at_a_point_chosen_on_itself(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [Sentence(line["text"], tuple(line["references"])) for line in LINES]
    judged: list[list[str]] = []

    def remember(writer: object, part: list[Sentence]) -> object:
        judged.append([sentence.text for sentence in part])
        return best(writer, part)

    best = gec_model._best
    monkeypatch.setattr(gec_model, "_best", remember)
    output, points = gec_model.tuned(loaded, sentences, rounds=1)
    assert len(output) == len(sentences)
    assert len(points) == 2
    assert sorted(judged[0] + judged[1]) == sorted(sentence.text for sentence in sentences)
    assert judged[0] == [sentences[1].text, sentences[3].text]  # for the others


@pytest.mark.parametrize(
    "line", ["", "{}", '{"text": "a"}', '{"text": "a", "references": []}', '{"text": " ", "references": ["a"]}', "[1]"]
)
def test_a_line_that_is_no_sentence_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match="line 2: give"):
        gec.read_sentences(file)


def test_some_of_the_sentences_are_spread_over_the_file(data: Path) -> None:
    assert [sentence.text for sentence in gec.read_sentences(data, 2)] == [LINES[0]["text"], LINES[2]["text"]]


def test_the_suite_as_a_person_calls_it(
    model_folder: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ["--model", str(model_folder), "--rounds", "1", "--json", str(out), "--show"]
    assert command.run(["eval", "gec", *options, "--data", str(data)]) == 0
    result = json.loads(out.read_text())
    assert (result["suite"], len(result["points"])) == ("gec", 2)
    methods = {row["method"] for row in result["rows"] if "method" in row}
    assert methods == {"auto", "auto_tuned", "keep", "doubled_rule", "speller"}
    assert find(result["rows"], metric="f05", method="keep")["value"] == 0.0
    assert find(result["rows"], metric="better", method="doubled_rule")["value"] == 0.25
    assert find(result["rows"], metric="bytes")["value"] == (model_folder / "model.safetensors").stat().st_size
    assert 0 < find(result["rows"], metric="seconds")["value"] < 60
    assert np.isfinite([row["value"] for row in result["rows"]]).all()
    assert "gleu_gain" in capfd.readouterr().out
    assert command.run(["eval", "gec", *options, "--data", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: no such file" in capfd.readouterr().err
