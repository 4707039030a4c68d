from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.scripts import count_letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Two words, 2 commas,\n", {"LATIN": 14}),
        ("", {}),
        ("1 + 2", {}),
        ("é Straße", {"LATIN": 7}),
        ("Слово word", {"CYRILLIC": 5, "LATIN": 4}),
        ("日本語 です 😀", {"CJK": 3, "HIRAGANA": 2}),
        ("ｆｕｌｌ 𝔹𝒶𝓭 µ ª ℹ ʰ", {"LATIN": 10, "GREEK": 1}),
        ("aʼb", {"LATIN": 2, "OTHER": 1}),
        ("ﷲ العربية", {"ARABIC": 8}),
    ],
)
def test_letters_by_script(text: str, letters: dict[str, int]) -> None:
    assert count_letters(text) == letters


@given(st.text())
def test_every_letter_is_counted(text: str) -> None:
    alone = sum((count_letters(character) for character in text), Counter())
    assert count_letters(text) == alone
    assert alone.total() == sum(map(str.isalpha, text))
