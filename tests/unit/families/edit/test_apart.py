"""Texts whose marks stand apart: the model reads them closed up, and they come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmask.families.edit.infer.apart import ClosedUp
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import Writer

NOTHING = {"gate_threshold": 1.0, "max_growth": 0}  # is edited: no probability is above 1, and nothing may be added
TEXT = "However , I do n't think so , because it 's too late ."
CLOSED = "However, I don't think so, because it's too late."


def test_marks_and_endings_are_closed_up_and_set_apart() -> None:
    closed = ClosedUp.of(TEXT, None)
    assert closed is not None
    assert closed.text == CLOSED
    assert closed.set_apart(CLOSED) == TEXT
    assert closed.set_apart("I can't say, that he's late?") == "I ca n't say , that he 's late ?"


def test_a_mark_behind_a_quotation_mark() -> None:
    closed = ClosedUp.of('It is called " water " .', True)
    assert closed is not None
    assert closed.text == 'It is called " water ".'


def test_what_stood_in_the_text_stays() -> None:
    closed = ClosedUp.of("Mr. Li says no , etc. and goes .", True)
    assert closed is not None
    assert closed.text == "Mr. Li says no, etc. and goes."
    assert closed.set_apart("Mr. Li said no, etc. and don't.") == "Mr. Li said no , etc. and don't ."


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("I like it.", None),
        ("I like it .", None),  # one alone may be a slip
        ("I like it , and you .", False),
        ("It is closed , and gone.", None),
        ("He said etc. .", True),  # would not come back as it is
        ("No marks", True),
        ("", True),
    ],
)
def test_other_texts_are_read_as_they_are(text: str, sure: bool | None) -> None:
    assert ClosedUp.of(text, sure) is None


def test_one_mark_is_enough_where_they_are_said_to_stand_apart() -> None:
    closed = ClosedUp.of("I like it .", True)
    assert closed is not None
    assert closed.text == "I like it."


@given(st.text(st.sampled_from("ab .,!?'nts\n\"()1"), max_size=40), st.sampled_from([None, True]))
def test_every_text_comes_back_byte_by_byte(text: str, sure: bool | None) -> None:
    closed = ClosedUp.of(text, sure)
    assert closed is None or closed.set_apart(closed.text) == text


@given(
    words=st.lists(st.sampled_from(["I", "like", "do n't", "it 's", ",", ".", "?", "etc.", "(", "3,000"]), max_size=9)
)
def test_a_text_that_is_not_edited_comes_back(writer: Writer, words: list[str]) -> None:
    text = " ".join(words)
    for apart in (None, True, False):
        (result,) = writer.run([TextRequest(text, "auto", marks_apart=apart, options=NOTHING)])
        assert result.output == result.trace["output"] == text
        assert result.input == result.trace["input"] == text


def test_the_model_reads_them_closed_up(writer: Writer) -> None:
    requests = [TextRequest(TEXT, "auto", options=NOTHING), TextRequest(TEXT, "auto", ["late"], options=NOTHING)]
    closed, locked = writer.run(requests)
    assert closed.draft == CLOSED
    assert locked.draft == TEXT


def test_they_are_refused_where_nothing_is_mended() -> None:
    with pytest.raises(ValueError, match="marks apart True is not possible"):
        TextRequest("a ___", "infill", marks_apart=True)
    with pytest.raises(ValueError, match="marks apart True is not possible"):
        TextRequest("a", "edit", marks_apart=True, options={"keep_rate": 0.5})
