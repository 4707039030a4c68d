"""Areas under ROC curves: against the definition, with ties and weights."""

import numpy as np
import pytest

from dualmask.evaluation.ranking import auc, auc_row, roc


def by_definition(score, positive):
    """Every pair of a positive and a negative."""
    above = score[positive][:, None] - score[~positive]
    return np.mean((above > 0) + (above == 0) / 2)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_the_area_is_the_chance_of_a_right_order_and_ties_count_half(levels):
    random = np.random.default_rng(levels)
    score, positive = random.integers(0, levels, 200).astype(float), random.random(200) < 0.3
    assert auc(score, positive)[0] == pytest.approx(by_definition(score, positive))
    alarms, hits = roc(score, positive)
    assert np.trapezoid(hits, alarms) == pytest.approx(by_definition(score, positive))


def test_by_hand():
    score = np.array([0.1, 0.4, 0.4, 0.9])
    assert auc(score, np.array([False, False, True, True]))[0] == 0.875
    assert auc(score, np.array([True, True, False, False]))[0] == 0.125
    assert auc(np.zeros(4), np.array([True, True, False, False]))[0] == 0.5


def test_a_weight_is_a_number_of_copies():
    random = np.random.default_rng(0)
    score, positive = random.integers(0, 6, 30).astype(float), random.random(30) < 0.5
    weight = random.integers(0, 4, (3, 30))
    copies = [by_definition(np.repeat(score, row), np.repeat(positive, row)) for row in weight]
    assert auc(score, positive, weight) == pytest.approx(copies)


def test_the_interval_is_over_texts_not_over_their_tokens():
    """Ten copies of every token tell nothing new: same value, same interval."""
    random = np.random.default_rng(2)
    positive = random.random(60) < 0.5
    score, owner = positive + random.normal(size=60), np.arange(60)
    row = auc_row("area", score, positive, owner, method="m")
    copied = auc_row("area", *(np.tile(value, 10) for value in (score, positive, owner)), method="m")
    assert row["n"] == copied["n"] == 60
    assert row["lo"] < row["value"] < row["hi"]
    for name in ("value", "lo", "hi"):
        assert copied[name] == pytest.approx(row[name], abs=1e-6)
