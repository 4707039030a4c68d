"""Words of texts, and which of them are known."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmask.core.words import WordList, words_of


def test_words_have_letters_and_apostrophes_inside() -> None:
    text = "It's the dogs' bowl, don’t_touch x2 naïve 'so'."
    found = words_of(text)
    assert [word for _, _, word in found] == ["It's", "the", "dogs", "bowl", "don’t", "touch", "x", "naïve", "so"]
    assert all(text[start:end] == word for start, end, word in found)


@given(st.text())
def test_words_are_apart_and_in_order(text: str) -> None:
    found = words_of(text)
    assert all(text[start:end] == word and word for start, end, word in found)
    assert all(end < start for (_, end, _), (start, _, _) in itertools.pairwise(found))


def test_frequent_words_come_first_and_the_border_of_a_text_does_not_count() -> None:
    words = WordList.of(["cut the cat and the dog off", "cut a cat off", "cut", "", "one two"], least=1)
    assert words.words == ("cat", "the", "a", "and", "dog")
    assert WordList.of(["x the cat and the dog y"], least=2).words == ("the",)


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("file", True),
        ("File", True),
        ("FILE", False),
        ("fIle", False),
        ("file's", True),
        ("File’s", True),
        ("files", False),
        ("Paris", True),
        ("paris", False),
        ("Paris's", True),
        ("don't", True),
        ("Don’t", True),
        ("s", False),
        ("'s", False),
        ("", False),
    ],
)
def test_what_is_known(word: str, known: bool) -> None:
    assert WordList(["file", "Paris", "don't", "file"]).known(word) is known


def test_saved_and_loaded(tmp_path: Path) -> None:
    words = WordList(["the", "don’t", "naïve"])
    words.save(tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text(encoding="utf-8") == "the\ndon't\nnaïve\n"
    assert WordList.load(tmp_path / "words.txt").words == words.words
    assert len(WordList.load(tmp_path / "words.txt")) == 3


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no list of words"):
        WordList.load(tmp_path / "none.txt")
    (tmp_path / "words.txt").write_text("the\ntwo words\n")
    with pytest.raises(ValueError, match="line 2: 'two words' is not a word"):
        WordList.load(tmp_path / "words.txt")
