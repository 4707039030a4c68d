"""Which known words are near, and how likely each is meant; what a list and a dictionary know together."""

from __future__ import annotations

import random
import string

from rapidfuzz.distance import OSA

from dualmask.core.dictionary import dictionary
from dualmask.core.near_words import LONG, NearWords
from dualmask.core.words import WordList

WORDS = WordList(["the", "a", "lot", "house", "horse", "mouse", "house's", "receive", "is", "London", "small"])


def near(word: str, words: WordList = WORDS, most: int = 16) -> list[str]:
    return [each.word for each in NearWords(words, most).near(word)]


class TestNearWords:
    def test_the_nearest_and_then_the_most_frequent_come_first(self) -> None:
        assert near("hpuse") == ["house", "horse", "mouse"]
        assert near("hprse") == ["horse", "house"]
        first, second, _ = NearWords(WORDS).near("hpuse")
        assert first.log_prob > second.log_prob + 3

    def test_ends_and_consonants_are_seldom_wrong(self) -> None:
        assert near("fashon", WordList(["fusion", "fashion"])) == ["fashion", "fusion"]
        assert near("bater", WordList(["later", "baker"])) == ["baker", "later"], "though it is rarer"

    def test_two_letters_may_be_wrong_in_long_words_only(self) -> None:
        assert near("recieev") == ["receive"]
        assert near("lwx") == []

    def test_neighbours_that_changed_places_are_one_mistake(self) -> None:
        assert near("teh") == ["the"]

    def test_a_missing_blank(self) -> None:
        assert near("alot") == ["a lot", "lot"]

    def test_an_irregular_word_that_was_inflected_by_rule(self) -> None:
        words = WordList(["the", "taught", "reached", "children"])
        assert near("teached", words) == ["taught", "reached"]
        assert near("Childs", words) == ["Children"]

    def test_a_capital_stays(self) -> None:
        assert near("Smal") == ["Small"]
        assert near("Smal", WordList(["Small", "small"])) == ["Small"]

    def test_few_are_given(self) -> None:
        assert near("hpuse", most=2) == ["house", "horse"]

    def test_words_of_two_letters_are_near_everything(self) -> None:
        assert near("xs") == []


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
