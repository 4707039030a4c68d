"""`eval adaptive`: rounds and rules read off one rollout are what the engine does when it is asked."""

import pydoc_data.topics

import numpy as np
import pytest

from dualmask.core.lexicon import read_lexicon
from dualmask.families.edit.evaluate import adaptive, corrupted
from dualmask.families.edit.evaluate.adaptive import Facts
from dualmask.families.edit.evaluate.rollouts import Rollout, roll_out
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Request
from dualmask.inference.loading import load

LINES = [" ".join(text.split()) for text in sorted(pydoc_data.topics.topics.values())]
ROUNDS = 6


@pytest.fixture(scope="module")
def loaded(model_folder):
    """A model that edits, and doubts much: its texts end after different numbers of rounds."""
    loaded = load(model_folder, "cpu")
    loaded.model.gate.decide.bias.data.fill_(5.0)
    loaded.model.picker.doubt.bias.data[:] = 1.0
    return loaded


@pytest.fixture(scope="module")
def engine(loaded):
    return Engine(loaded.model, read_lexicon(loaded.tokenizer))


@pytest.fixture(scope="module")
def right(loaded):
    return corrupted.right_texts(LINES, loaded, limit=24, typos=False)


@pytest.fixture(scope="module")
def drafts(right):
    return corrupted.rows(right)


def make_facts(quality, **changes):
    """Facts of N texts by hand: quality [N, R + 1]."""
    quality = np.array(quality, dtype=float)
    number, rounds = len(quality), quality.shape[1] - 1
    silent = np.zeros((number, rounds))
    plain = {"played": np.full(number, rounds), "confidence": silent, "distance": silent + 1, "entropy": silent + 9}
    return Facts(quality=quality, start=np.zeros(number, dtype=int), **(plain | changes))


def figure(rows, metric):
    (value,) = (row["value"] for row in rows if row["metric"] == metric)
    return value


@pytest.mark.parametrize("rounds", range(1, ROUNDS + 1))
def test_fewer_rounds_are_the_beginning_of_more(rounds, engine, drafts):
    long = roll_out(engine, drafts, "auto", ROUNDS)
    short = engine.run([Request(ids, "auto", rounds=rounds) for ids in drafts])
    assert [rollout.draft(rounds) for rollout in long] == [result.ids for result in short]


def test_a_text_that_came_back_goes_round_in_its_circle():
    rollout = Rollout(result=None, drafts=[[1], [2], [3], [4], [2]])
    assert [rollout.draft(number) for number in range(9)] == [[n] for n in (1, 2, 3, 4, 2, 3, 4, 2, 3)]
    assert [rollout.turn(number) for number in range(9)] == [0, 1, 2, 3, 4, 2, 3, 4, 2]
    settled = Rollout(result=None, drafts=[[1], [2], [2]])
    assert [settled.draft(number) for number in range(5)] == [[1], [2], [2], [2], [2]]


@pytest.mark.parametrize(
    ("rule", "option", "threshold"),
    [
        ("confidence", "stop_confidence", 0.2),
        ("confidence", "stop_confidence", 0.5),
        ("edit_distance", "stop_distance", 0.05),
        ("edit_distance", "stop_distance", 0.2),
    ],
)
def test_a_rule_stops_where_the_engine_stops(rule, option, threshold, engine, loaded, right, drafts, monkeypatch):
    """The rules are replayed on facts; here the same texts run with the real stop criteria."""
    monkeypatch.setattr(adaptive, "STARTS", ("clean",))  # drafts are the texts themselves
    facts = adaptive.observe(loaded, right, ROUNDS)
    used = adaptive.rounds_used(facts, rule, threshold)
    results = engine.run([Request(ids, "auto", rounds=ROUNDS, **{option: threshold}) for ids in drafts])
    assert used.tolist() == [len(result.rounds) for result in results]
    assert len(set(used.tolist())) > 1


def test_rules_by_hand():
    confidence = np.array([[0.2, 0.9, 0.0], [0.1, 0.1, 0.1]])
    facts = make_facts(np.zeros((2, 4)), confidence=confidence, played=np.array([3, 2]), entropy=1 - confidence)
    assert adaptive.rounds_used(facts, "fixed", 2).tolist() == [2, 2]
    assert adaptive.rounds_used(facts, "unchanged", 0).tolist() == [3, 2]
    assert adaptive.rounds_used(facts, "confidence", 0.9).tolist() == [2, 2]
    assert adaptive.rounds_used(facts, "confidence", 0.95).tolist() == [3, 2]
    assert adaptive.rounds_used(facts, "entropy", 0.15).tolist() == [2, 3]


def test_figures_of_a_rule_by_hand():
    """The first text needs one round, the second one three."""
    facts = make_facts([[0.2, 0.8, 0.8, 0.8], [0.0, 0.1, 0.4, 0.8]])
    rows = adaptive.rule_rows(facts, np.array([1, 3]), method="oracle")
    assert figure(rows, "quality") == pytest.approx(0.8)
    assert figure(rows, "rounds") == 2
    assert figure(rows, "quality_kept") == pytest.approx(1.0)
    assert figure(rows, "gain_kept") == pytest.approx(1.0)
    assert figure(rows, "rounds_saved") == pytest.approx(1 / 3)
    assert figure(rows, "gain_over_fixed") == pytest.approx(0.8 - 0.6)  # two rounds for each: 0.8 and 0.4
    dealt = adaptive.rule_rows(facts, np.array([3, 1]), method="dealt")
    assert figure(dealt, "rounds") == 2
    assert figure(dealt, "gain_over_fixed") == pytest.approx(0.45 - 0.6)


def test_between_two_numbers_of_rounds_the_baseline_is_randomised():
    facts = make_facts([[0.0, 0.2, 0.6], [0.0, 0.4, 0.8]])
    rows = adaptive.rule_rows(facts, np.array([1, 2]), method="rule")
    assert figure(rows, "gain_over_fixed") == pytest.approx((0.2 + 0.8) / 2 - (0.3 + 0.7) / 2)
    whole = adaptive.rule_rows(facts, np.array([2, 2]), method="rule")
    assert figure(whole, "gain_over_fixed") == 0


def test_rounds_that_gain_nothing_have_no_share_of_a_gain():
    rows = adaptive.rule_rows(make_facts([[0.5, 0.5], [0.5, 0.4]]), np.array([1, 1]), method="rule")
    assert "gain_kept" not in {row["metric"] for row in rows}


def test_entropy_is_that_of_the_filler_before_it_filled(loaded, engine, drafts):
    """Nothing is filled in a generation that finds no hole; elsewhere entropy lies between 0 and that of a die."""
    rollouts = roll_out(engine, drafts, "auto", 2)
    entropies = adaptive._entropies(loaded.model, rollouts)
    for rollout, values in zip(rollouts, entropies, strict=True):
        assert len(values) == rollout.rounds_run
        for done, value in zip(rollout.result.rounds, values, strict=True):
            assert (value == 0) == (not done.filled)
            assert value <= np.log(loaded.model.vocab_size) + 1e-4
    one = adaptive._entropies(loaded.model, rollouts[:1])
    assert one[0] == pytest.approx(entropies[0], abs=1e-4)  # whatever else is in the batch


def test_the_suite_on_a_small_model(loaded, right):
    rows = adaptive.evaluate(loaded, right, rounds=3)
    starts = {row["start"] for row in rows if row["metric"] == "quality_by_rounds"}
    assert starts == {"all", *adaptive.STARTS}
    clean = [row for row in rows if row.get("start") == "clean" and row["rounds"] == 0]
    assert [row["value"] for row in clean] == [1.0]
    fitted = {row["method"] for row in rows if row.get("threshold") == adaptive.FITTED}
    assert fitted == {name + end for name in ("fixed", *adaptive.THRESHOLDS) for end in ("", "_shuffled")}
    used = {
        row["method"]: row["value"] for row in rows if row["metric"] == "rounds" and row["threshold"] == adaptive.FITTED
    }
    assert used["unchanged"] == used["unchanged_shuffled"] <= 3
