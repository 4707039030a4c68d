import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clean import TEXT_BREAK, count_words, has_words, paragraphs

ASCII = st.text(st.characters(max_codepoint=127) | st.sampled_from("\n\r\v\f\0\x1f\x7f a."), max_size=40)


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        ("Wrapped lines of one\nparagraph are joined.", ["Wrapped lines of one paragraph are joined."]),
        (
            "The first one stands here.\n\nThe second  one stands here.",
            ["The first one stands here.", "The second one stands here."],
        ),
        ("Return the value of x.\n\n>>> f(1)\n1\n", ["Return the value of x."]),
        (
            "Here is an example::\n\n    The code is not prose.\n\nBut this line is prose.",
            ["Here is an example:", "But this line is prose."],
        ),
        (
            ".. code-block:: python\n\n    This is code for all.\n\nThis is not code at all.",
            ["This is not code at all."],
        ),
        (".. note::\n\n    The body of a note stays.", ["The body of a note stays."]),
        ("```\nThe fence hides this sentence.\n```\nThe rest is shown to all.", ["The rest is shown to all."]),
        ("Title of This Page.\n===================\nThe text below a title.", ["The text below a title."]),
        ("Title\n=====\n\nThe text below a title.", ["The text below a title."]),
        ("Use :class:`~a.b.Thing` and ``code`` with **care** here.", ["Use Thing and code with care here."]),
        ("See :ref:`the manual <label>` and `this page <to>`_ for it.", ["See the manual and this page for it."]),
        ("Read [the guide](http://x.y/z) before you start.", ["Read the guide before you start."]),
        ("See https://example.org for the details. The rest is prose too.", ["The rest is prose too."]),
        (
            ":param x: The number of rows to read.\n:returns: A list of the rows read.",
            ["The number of rows to read.", "A list of the rows read."],
        ),
        ("x : int, optional\n    The number of rows to read.", ["The number of rows to read."]),
        (
            "limit (int): The number of rows to read.\nother: Another number for the reader.",
            ["The number of rows to read.", "Another number for the reader."],
        ),
        (
            "- A list item that goes on\n  in the next line.\n- A second item of the list.",
            ["A list item that goes on in the next line.", "A second item of the list."],
        ),
        ("| a | table | here |\n| 1 | 2 | 3 |", []),
        ("name      value     Meaning of it\nfoo       1         The first one.", []),
        ("too short.", []),
        ("No full stop at the end", []),
        ("lower case starts are cut off pieces.", []),
        ("Assign x = {1: 2} | y > z to it.", []),
        ("It\x00 has\u200b control \ufeffcharacters inside it.", ["It has control characters inside it."]),
        ("A lone \ud800 surrogate is taken out.", ["A lone surrogate is taken out."]),
        ("", []),
    ],
)
def test_prose(markup: str, prose: list[str]) -> None:
    assert paragraphs([markup], "prose") == prose


def test_plain_keeps_lines_and_code() -> None:
    text = "Title\n=====\r\n\r\n    x = 1   \n    y = 2\n\n\n\nEnd\x07."
    assert paragraphs([text], "plain") == ["Title\n=====", "    x = 1\n    y = 2", "End."]


def test_texts_of_a_document_do_not_run_together() -> None:
    assert paragraphs(["Ends with an example::", "    Another docstring begins here."], "prose") == [
        "Ends with an example:",
        "Another docstring begins here.",
    ]


def test_a_break_between_texts_does_the_same() -> None:
    texts = ["Ends with an example::", "    Another docstring begins here."]
    assert paragraphs([TEXT_BREAK.join(texts)], "prose") == paragraphs(texts, "prose")


@pytest.mark.parametrize("line_break", ["\r\n", "\r", "\v", "\f", "\x85", "\u2028"])
def test_what_unicode_breaks_lines_at(line_break: str) -> None:
    assert paragraphs([f"one{line_break}two{line_break}{line_break}three"], "plain") == ["one\ntwo", "three"]


def test_a_paragraph_separator_ends_a_paragraph() -> None:
    assert paragraphs(["one\u2029two"], "plain") == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("two words", 2),
        ("zwei Wörter", 2),
        ("a\vb\fc\x85d\u2028e\u2029f", 6),
        ("我们今天去学校。", 8),  # with the full stop, which stands alone between two breaks
        ("中文 and English", 4),
        ("ひらがなカタカナ", 8),
        ("ภาษาไทย", 7),
        ("한국어 문장", 2),  # Korean has spaces
    ],
)
def test_words_are_counted_by_characters_where_there_are_no_spaces(text: str, words: int) -> None:
    assert count_words(text) == words


@given(ASCII)
def test_ascii_is_cleaned_as_other_text(text: str) -> None:
    text = text.replace(TEXT_BREAK, " ")
    assert [*paragraphs([text], "plain"), "é"] == paragraphs([f"{text}\n\né"], "plain")


@given(st.lists(ASCII, max_size=5), st.integers(1, 8))
def test_has_words(texts: list[str], least: int) -> None:
    assert has_words(texts, least) == (sum(map(count_words, texts)) >= least)


DOTS = "They called for the man who had gone . . . and then help came to them, but rather late."


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("I said that I don't , and she left us.", "I said that I don't, and she left us."),
        ("It is all there , as they say, and I don't .", "It is all there, as they say, and I don't."),
        (DOTS, DOTS),
        ("The old .NET runtime is here , and works.", "The old .NET runtime is here, and works."),
        ("There is a cat , and there was a dog here .", "There is a cat , and there was a dog here ."),
    ],
    ids=["once", "more than once", "dots", "a name that begins with a dot", "apart throughout"],
)
def test_a_sign_that_a_lost_word_left_behind_a_space_joins_the_word_in_front(text, prose):
    rest = "The rest of it is right." if prose != text else ""
    assert paragraphs([f"{text} {rest}"], "prose") == [f"{prose} {rest}".strip()]
