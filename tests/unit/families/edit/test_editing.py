"""`eval editing`: its figures of methods whose right answers are known, and the suite on a real small model."""

import json
import pydoc_data.topics

import numpy as np
import pytest
from rapidfuzz.distance import LCSseq
from typer.testing import CliRunner

from dualmask.families.edit.evaluate import correctors, corrupted, editing
from dualmask.families.edit.evaluate.baselines import filler_scores, likelihood_ratio
from dualmask.families.edit.evaluate.correctors import FillerThreshold, cross_fitted
from dualmask.inference.loading import load
from dualmask.ops.corruption import KINDS, LOOKED_UP
from launcher.command import app

LINES = [" ".join(text.split()) for text in sorted(pydoc_data.topics.topics.values())]


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load(model_folder, "cpu")


@pytest.fixture(scope="module")
def right(loaded):
    return corrupted.right_texts(LINES, loaded, limit=24, typos=False)


@pytest.fixture(scope="module")
def pairs(right, loaded):
    return corrupted.make_wrong(right, loaded, rate=0.2, kinds=corrupted.TOKEN_KINDS)


def figures(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_a_perfect_corrector_has_perfect_figures(pairs):
    value = figures(editing.outcome_rows(editing.Outcome("perfect", 1, pairs.targets, pairs.targets), pairs))
    assert value.pop("length_error") == value.pop("edit_distance") == 0
    assert value == dict.fromkeys(("f05", "precision", "recall", "detection_f05", "clean_untouched"), 1.0)


def test_who_does_nothing_finds_nothing_and_spoils_nothing(pairs):
    value = figures(editing.outcome_rows(editing.Outcome("keep", 0, pairs.sources, pairs.targets), pairs))
    assert value["f05"] == value["recall"] == 0
    assert value["clean_untouched"] == 1
    assert 0.1 < value["edit_distance"] < 0.4


def test_right_places_and_wrong_words_count_for_detection_only():
    source, target, corrected = [[6, 7, 8, 9]], [[6, 17, 8, 19]], [[6, 27, 8, 29]]

    class Given:
        sources, targets = source, target

    out = figures(editing.outcome_rows(editing.Outcome("m", 1, corrected, target), Given()))
    assert out["detection_f05"] == 1
    assert out["f05"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_error_alone_changes_lengths_as_it_should(kind, loaded):
    right = corrupted.right_texts(LINES, loaded, limit=24, typos=kind in LOOKED_UP)
    pairs = corrupted.make_wrong(right, loaded, rate=0.3, kinds=[kind])
    assert pairs.sources != pairs.targets
    longer = [len(wrong) - len(text) for wrong, text in zip(pairs.sources, pairs.targets, strict=True)]
    bounds = {"drop": (-99, 0), "double": (0, 99), "typo": (0, 99), "confuse": (-99, 99)}.get(kind, (0, 0))
    assert all(bounds[0] <= number <= bounds[1] for number in longer)
    assert max(map(len, pairs.sources)) <= loaded.config.max_length - 2


@pytest.mark.parametrize("relative", [False, True])
def test_the_filler_replaces_what_lies_below_the_limit_and_nothing_else(relative, pairs, loaded, monkeypatch):
    scores = [filler_scores(loaded.model, batch) for batch in pairs.wrong]
    monkeypatch.setattr(correctors, "RULES", [(relative, 0.0), (relative, 0.05)])
    correct = FillerThreshold(loaded)
    number = len(pairs.sources)
    assert correct(pairs.wrong, scores, np.zeros(number, dtype=int)) == pairs.sources
    doubted = []
    for batch, score in zip(pairs.wrong, scores, strict=True):
        prob = likelihood_ratio(batch, score) if relative else score.prob
        doubted += ((prob < 0.05) & batch.deletable).tolist()
    found = correct(pairs.wrong, scores, np.arange(number) % 2)
    assert found != pairs.sources
    for text, (source, corrected) in enumerate(zip(pairs.sources, found, strict=True)):
        assert len(corrected) == len(source)
        changed = [place for place, pair in enumerate(zip(corrected, source, strict=True)) if pair[0] != pair[1]]
        assert all(text % 2 and doubted[text][place + 1] for place in changed)


def test_the_oracle_changes_what_is_wrong_and_nothing_else(loaded, right):
    """Substitutions are replaced one by one; where only doubled words are wrong, nothing is left to guess."""
    doubled = corrupted.make_wrong(right, loaded, rate=0.3, kinds=["double"])
    assert correctors.Oracle(loaded)(doubled.wrong, doubled.right) == doubled.targets
    wrong = corrupted.make_wrong(right, loaded, rate=0.2, kinds=["substitute"])
    results = correctors.Oracle(loaded)(wrong.wrong, wrong.right)
    for batch, target, corrected in zip(wrong.sources, wrong.targets, results, strict=True):
        kept = LCSseq.similarity(batch, target)
        assert LCSseq.similarity(corrected, target) >= kept
        assert len(corrected) <= len(target)


def test_a_threshold_is_chosen_on_the_other_half():
    """Candidate 1 is best on even texts and 2 on odd ones: each half gets what the other one likes."""
    liked = {0: 1, 1: 2}
    chosen = cross_fitted(3, 6, lambda candidate, part: float(liked[part[0] % 2] == candidate))
    assert chosen.tolist() == [2, 1, 2, 1, 2, 1]


def test_the_suite_on_a_small_model(right, loaded):
    rows, curves = editing.evaluate(loaded, right, rate=0.2, kinds=["substitute", "drop"], rounds=(1, 2))
    methods = {(row["method"], row["rounds"]) for row in rows if row["metric"] == "f05"}
    assert methods == {
        ("keep", 0),
        *((method, rounds) for method in ("auto", "edit") for rounds in (1, 2)),
        *((method, 1) for method in ("shuffled_gate", "gate_off", "filler_threshold", "oracle")),
    }
    assert {row["kind"] for row in rows if "kind" in row} == {"substitute", "drop"}
    areas = {(row["metric"], row["method"]): row["value"] for row in rows if row["metric"].endswith("auc")}
    judges = {"gate_auc": ("gate", "filler"), "wrong_auc": ("picker", "filler", "filler_ratio")}
    assert areas.keys() == {(metric, by) for metric, names in judges.items() for by in names}
    assert set(curves) == {" ".join(name) for name in areas}
    assert all(row["lo"] <= row["value"] <= row["hi"] for row in rows)


def test_the_command_writes_rows_and_a_plot(model_folder, tmp_path):
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in LINES[:20]))
    out, plot = tmp_path / "out.json", tmp_path / "roc.png"
    common = ["eval", "editing", "--model", str(model_folder), "--data", str(data), "--limit", "16", "--rounds", "1"]
    result = CliRunner().invoke(app, [*common, "--kinds", "typo,confuse", "--json", str(out), "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert "Recall by kind of error" in result.output
    written = json.loads(out.read_text())
    assert written["suite"] == "editing"
    assert written["kinds"] == ["typo", "confuse"]
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kinds", "substitute,dorp"], "'dorp' is not one of"),
        (["--corruption-rate", "1.5"], "--corruption-rate 1.5"),
        (["--rounds", "0"], "--rounds 0"),
    ],
)
def test_bad_options_are_named(options, words, model_folder, tmp_path):
    result = CliRunner().invoke(
        app, ["eval", "editing", "--model", str(model_folder), "--data", "none.jsonl", *options]
    )
    assert isinstance(result.exception, ValueError)
    assert words in str(result.exception)
