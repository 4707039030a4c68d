"""Nothing that is near enough is missed, and what a list and a dictionary know together."""

from __future__ import annotations

import random
import string

from rapidfuzz.distance import OSA

from dualmask.core.dictionary import dictionary
from dualmask.core.near_words import LONG, NearWords
from dualmask.core.words import WordList


def misspelt(word: str, chance: random.Random) -> str:
    letters = list(word)
    for _ in range(2):
        place, letter = chance.randrange(len(letters)), chance.choice(string.ascii_lowercase + "'")
        kind = chance.randrange(4)
        if kind == 0 and len(letters) > LONG:
            del letters[place]
        elif kind == 1:
            letters.insert(place, letter)
        elif kind == 2:
            letters[place] = letter
        else:
            letters[place - 1], letters[place] = letters[place], letters[place - 1]
    return "".join(letters)


def test_all_that_is_near_enough_is_found() -> None:
    words = WordList(dictionary()[:4000])
    near, chance = NearWords(words, most=len(words)), random.Random(0)
    for _ in range(200):
        written = misspelt(chance.choice(words.words), chance)
        if len(written) >= 3:
            most = 1 if len(written) < LONG else 2
            expected = {word for word in words.words if OSA.distance(word, written, score_cutoff=most) <= most}
            assert expected <= {each.word for each in near.near(written)}, written


def test_the_dictionary_begins_with_the_most_frequent_words() -> None:
    words = dictionary()
    assert words[:3] == ["the", "of", "and"]
    assert len(words) > 80_000


def test_a_list_with_a_dictionary() -> None:
    joined = WordList(["tuple", "London", "the", "march", "March"]).joined(["the", "london", "of", "march", "fog"])
    assert joined.words == ("the", "tuple", "London", "of", "march", "March", "fog")
    assert joined.known("London")
    assert not joined.known("london"), "a name keeps its capital"
