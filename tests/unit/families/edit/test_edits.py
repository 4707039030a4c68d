"""Edits as spans and replacements: what they say, and that they say it in one way only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.evaluate.edits import Edit

texts = some.lists(some.integers(0, 3), max_size=12)


@pytest.mark.parametrize(
    ("source", "result", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], set()),
        ([1, 2, 3], [1, 9, 3], {Edit(1, 2, (9,))}),
        ([1, 2, 3], [1, 3], {Edit(1, 2, ())}),
        ([1, 2, 3], [1, 2, 7, 8, 3], {Edit(2, 2, (7, 8))}),
        ([1, 2, 3, 4, 5], [9, 2, 3, 5], {Edit(0, 1, (9,)), Edit(3, 4, ())}),
        ([], [4], {Edit(0, 0, (4,))}),
    ],
)
def test_edits_by_hand(source, result, expected):
    assert edits.edits(source, result) == expected


@given(texts, texts)
def test_edits_lead_from_the_source_to_the_result(source, result):
    out, at = [], 0
    for start, end, written in sorted(edits.edits(source, result)):
        out += [*source[at:start], *written]
        at = end
    assert out + source[at:] == result


@pytest.mark.parametrize("tail", [[], [5], [6, 5], [5, 5, 1]])
def test_a_doubled_word_taken_out_has_one_name_whatever_else_happens(tail):
    """Either copy may be the one that went; the second text has another edit behind it."""
    source, result = [1, 2, 2, 2, 3, 4, 5, *tail], [1, 2, 2, 3, 4, 9]
    assert Edit(1, 2, ()) in edits.edits(source, [1, 2, 2, 3, 4, 5, *tail])
    assert Edit(1, 2, ()) in edits.edits(source, result)


def test_an_inserted_phrase_is_moved_left_as_a_whole():
    assert edits.edits([1, 2, 3, 2, 4], [1, 2, 3, 2, 3, 2, 4]) == {Edit(1, 1, (2, 3))}


def test_agreement_counts_edits_and_spans():
    source, target = [1, 2, 3, 4, 5, 6], [1, 9, 3, 5, 6]
    assert edits.agreement(source, target, target) == (2, 2, 2, 2)
    assert edits.agreement(source, source, target) == (0, 0, 2, 0)
    # the first word is doubted rightly but replaced wrongly, the last one should have stayed
    assert edits.agreement(source, [1, 8, 3, 5, 7], target) == (1, 3, 2, 2)


def test_f05_precision_recall_by_hand():
    sums = np.array([3.0, 4.0, 6.0])  # 3 right of 4 made, of 6 wanted
    precision, recall = 3 / 4, 3 / 6
    assert edits.precision(sums) == precision
    assert edits.recall(sums) == recall
    assert edits.f05(sums) == pytest.approx(1.25 * precision * recall / (0.25 * precision + recall))
    assert edits.f05(np.array([0.0, 0.0, 6.0])) == 0
    assert edits.precision(np.array([0.0, 0.0, 6.0])) == 1


def test_untouched_counts_what_was_inserted_too():
    clean = [1, 2, 3, 4]
    assert edits.untouched(clean, clean) == 4
    assert edits.untouched(clean, [1, 2, 9, 4]) == 3
    assert edits.untouched(clean, [1, 2, 3, 3, 4]) == 3
    assert edits.untouched(clean, [7] * 9) == 0
