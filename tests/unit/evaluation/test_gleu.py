"""GLEU by hand, and what must hold for any sentences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmask.evaluation import gleu

WORDS = st.lists(st.sampled_from("abcd"), min_size=4, max_size=9)


def words(text: str) -> list[str]:
    return text.split()


def figure(source: str, hypothesis: str, *references: str) -> float:
    columns = gleu.columns([source.split()], [hypothesis.split()], [[each.split() for each in references]])
    return float(gleu.gleu(columns.sum(0)))


def test_what_should_have_been_changed_is_taken_off() -> None:
    """the, cat and here are right, sit is not; of the pairs, "the cat" is right and the two with sit are not."""
    source, reference = words("the cat sit here"), words("the cat sits here")
    assert gleu.sentence(source, source, reference) == [4, 4, 3 - 1, 4, 0, 3, 0, 2, 0, 1]
    # another wrong word costs a match, but is not held against the hypothesis once more
    assert gleu.sentence(source, words("the cat sat here"), reference) == [4, 4, 3, 4, 1, 3, 0, 2, 0, 1]


def test_a_doubled_word_that_stays_is_taken_off_once() -> None:
    assert gleu.sentence(words("a a b"), words("a a b"), words("a b"))[:6] == [3, 2, 2 - 1, 3, max(1 - 1, 0), 2]


def test_a_value_by_hand() -> None:
    """One word of six is wrong and stays at the end: 5 of 6 less 1, 4 of 5 less 1, 3 of 4 less 1, 2 of 3 less 1."""
    source, reference = "a b c d e x", "a b c d e f"
    expected = math.prod([4 / 6, 3 / 5, 2 / 4, 1 / 3]) ** 0.25
    assert figure(source, source, reference) == pytest.approx(expected)


def test_a_short_hypothesis_is_punished_for_its_length() -> None:
    assert figure("x", "a b c d e", "a b c d e f") == pytest.approx(math.exp(1 - 6 / 5))
    assert figure("x", "", "a b c d") == 0.0


def test_of_several_references_the_mean_counts() -> None:
    right, other = "a b c d", "e f g h"
    assert figure("x", right, right, other) == pytest.approx(0.5, abs=0.08)  # 1 or 0 in each draw
    assert figure("x", right, right, right) == 1.0


def test_statistics_add_up_over_sentences() -> None:
    sources, texts, references = [["y"]] * 2, [words("a b c d"), words("a b c x")], [words("a b c d")] * 2
    both = gleu.gleu(gleu.columns(sources, texts, [[each] for each in references]).sum(0))
    assert both == pytest.approx(math.prod([(4 + 3) / 8, (3 + 2) / 6, (2 + 1) / 4, 1 / 2]) ** 0.25)


@given(WORDS, WORDS, WORDS)
def test_a_figure_is_a_share_and_the_reference_has_all_of_it(source: list, hypothesis: list, reference: list) -> None:
    text = " ".join
    assert 0.0 <= figure(text(source), text(hypothesis), text(reference)) <= 1.0
    assert figure(text(source), text(reference), text(reference)) == pytest.approx(1.0)
