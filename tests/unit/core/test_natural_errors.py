"""Errors of words: each rule by examples, and what holds for any text."""

from __future__ import annotations

import random
import sys
from collections import Counter
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmask.config.natural import KINDS, NaturalErrors
from dualmask.core.natural import forms, grammar, rules, spelling, surface
from dualmask.core.natural.texts import NaturalTexts, Rates
from dualmask.core.natural.word import Word
from dualmask.core.tokenizer import Tokenizer

TEXT = (
    "The old man has been waiting for two hours, because his sister wants to visit the museum. She doesn't know that "
    "it was closed yesterday. They go to school every day without a book, and I often read the letters of my friends. "
    "He walked alone. "
)


@pytest.fixture(scope="module")
def natural(english_tokenizer: Tokenizer) -> NaturalTexts:
    return NaturalTexts(english_tokenizer)


def rates(rate: float = 0.3, **weights: float) -> Rates:
    """All kinds by their usual weights, or those named alone."""
    usual = NaturalErrors().weights
    return Rates.of(rate, rate, usual if not weights else dict.fromkeys(usual, 0.0) | weights)


def results(write: object, text: str, at: str) -> set[str]:
    """All that a rule makes of a text at the word whose stem is ``at``."""
    parts = text.split(" ")
    words = [Word.of((" " if number else "") + part) for number, part in enumerate(parts)]
    place = next(number for number, word in enumerate(words) if word.stem == at)
    assert callable(write)
    assert any(rule.write is write and rule.fits(words[place]) for each in rules.RULES.values() for rule in each)
    made = set()
    for seed in range(200):
        if edit := write(words, place, random.Random(seed).random):
            behind = "".join(word.text for word in words[edit.behind :])
            made.add("".join(word.text for word in words[: edit.first]) + edit.text + behind)
    return made


def alike(made: list[str], right: list[str]) -> int:
    """Number of words with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(made, right, strict=False)))


CASES = [
    (grammar.article_left_out, "The dog sleeps.", "The", {"Dog sleeps."}),
    (grammar.article_left_out, "I see (a dog).", "a", {"I see (dog)."}),
    (grammar.article_left_out, "I see a dog.", "a", {"I see dog."}),
    (grammar.article_other, "I see the apple.", "the", {"I see an apple."}),
    (grammar.article_other, "An apple fell.", "An", {"The apple fell."}),
    (grammar.article_sound, "I see a dog.", "a", {"I see an dog."}),
    (grammar.article_more, "We go to school.", "school", {"We go to the school.", "We go to a school."}),
    (grammar.article_more, "We like old songs.", "songs", set()),
    (grammar.preposition_other, "Sit on it.", "on", {f"Sit {word} it." for word in ("in", "at", "onto", "upon",
                                                                                   "about", "over")}),
    (grammar.preposition_left_out, "Listen to me.", "to", {"Listen me."}),
    (grammar.preposition_left_out, "Of course.", "Of", set()),
    (grammar.preposition_more, "We discussed the plan.", "discussed", {"We discussed about the plan."}),
    (grammar.preposition_more, "We discussed.", "discussed", set()),
    (grammar.number_other, "Many dogs bark.", "dogs", {"Many dog bark."}),
    (grammar.number_other, "I need information.", "information", {"I need informations."}),
    (grammar.number_other, "The children play.", "children", {"The child play."}),
    (grammar.number_other, "They plan it.", "plan", set()),  # a verb here
    (grammar.number_other, "The plan failed.", "plan", {"The plans failed."}),
    (grammar.verb_form, "I can go home.", "go", {f"I can {form} home." for form in ("going", "went", "goes", "gone")}),
    (grammar.verb_form, "He has written it.", "written", {f"He has {form} it." for form in ("write", "writing",
                                                                                           "wrote")}),
    (grammar.verb_form, "He is also waiting.", "waiting", {f"He is also {form}." for form in ("wait", "waits",
                                                                                             "waited")}),
    (grammar.verb_form, "Thanks for coming.", "coming", {"Thanks for come."}),
    (grammar.verb_form, "They go.", "go", set()),
    (grammar.auxiliary_left_out, "He is waiting.", "is", {"He waiting."}),
    (grammar.auxiliary_left_out, "He is old.", "is", set()),
    (grammar.infinitive, "I want to go.", "to", {"I want go."}),
    (grammar.infinitive, "I can go.", "can", {"I can to go."}),
    (grammar.infinitive, "I went to Rome.", "to", set()),
    (grammar.tense, "She walked home.", "walked", {"She walk home.", "She walks home."}),
    (grammar.tense, "They go home.", "go", {"They went home."}),
    (grammar.tense, "It was walked.", "walked", set()),
    (grammar.agreement, "They were late.", "were", {"They was late."}),
    (grammar.agreement, "She doesn't know.", "doesn't", {"She don't know."}),
    (grammar.agreement, "It must have rained.", "have", set()),
    (grammar.third_person, "He goes home.", "goes", {"He go home."}),
    (grammar.third_person, "My friends sing.", "sing", {"My friends sings."}),
    (grammar.third_person, "to sing songs.", "sing", set()),
    (grammar.pronoun, "They saw him.", "him", {"They saw he.", "They saw his."}),
    (grammar.pronoun, "Here I am.", "I", {"Here me am.", "Here my am.", "Here mine am."}),
    (grammar.pronoun, "It hit me.", "me", {"It hit I."}),
    (surface.confusable, "Their dog.", "Their", {"There dog.", "They're dog."}),
    (surface.homophone, "Two hours.", "hours", set()),
    (surface.homophone, "One hour.", "hour", {"One our."}),
    (surface.of_class, "How much books.", "much", {"How many books."}),
    (surface.manner, "He runs quickly.", "quickly", {"He runs quick."}),
    (surface.manner, "It is larger now.", "larger", {"It is more larger now."}),
    (surface.comma_left_out, "First, we go.", "First", {"First we go."}),
    (surface.comma_left_out, "First,", "First", set()),
    (surface.end_left_out, "We go. He stays.", "go", {"We go He stays."}),
    (surface.comma_for_end, "We go. He stays.", "go", {"We go, He stays."}),
    (surface.comma_more, "I know that.", "know", {"I know, that."}),
    (surface.apostrophe_left_out, "It doesn't.", "doesn't", {"It doesnt."}),
    (surface.capital_left_out, "In Rome.", "Rome", {"In rome."}),
    (surface.capital_left_out, "Here I am.", "I", {"Here i am."}),
    (surface.capital_more, "My teacher.", "teacher", {"My Teacher."}),
    (surface.missing, "I think that he is old.", "he", {"I think that is old."}),
    (surface.doubled, "The dog.", "The", {"The the dog."}),
    (surface.joined, "I like it a lot.", "a", {"I like it alot."}),
    (surface.joined, "A very unusual situation.", "unusual", set()),
    (surface.parted, "He came into it.", "into", {"He came in to it."}),
    (surface.swapped, "I always go there.", "always", {"I go always there."}),
]  # fmt: skip


@pytest.mark.parametrize(("write", "text", "at", "expected"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_rule(write: object, text: str, at: str, expected: set[str]) -> None:
    rule = [each for of_kind in rules.RULES.values() for each in of_kind if each.write is write]
    if expected or any(each.fits(Word.of(at)) for each in rule):
        assert results(write, text, at) == expected


def test_every_rule_has_an_example() -> None:
    every = {rule.write for each in rules.RULES.values() for rule in each}
    assert every - {write for write, _, _, expected in CASES if expected} == {spelling.by_keys, spelling.by_sound}


def test_the_kinds_of_the_configuration_are_those_of_the_rules() -> None:
    assert tuple(rules.RULES) == KINDS


def test_words_are_misspelt_by_the_keys_and_by_the_sound() -> None:
    keys = results(spelling.by_keys, "The people came.", "people")
    assert {"The peple came.", "The poeple came.", "The peopple came."} <= keys
    assert len(keys) > 15
    sound = results(spelling.by_sound, "I will receive it.", "receive")
    assert {"I will recieve it.", "I will receiv it."} <= sound
    assert {"I will definitly go."} <= results(spelling.by_sound, "I will definitely go.", "definitely")
    assert {"It was diferent."} <= results(spelling.by_sound, "It was different.", "different")
    for text in keys | sound:
        assert not all(map(forms.is_word, text.lower().rstrip(".").split()))


def test_a_name_is_not_misspelt() -> None:
    assert not spelling.may_be_misspelt(Word.of(" London"))
    assert not spelling.may_be_misspelt(Word.of(" cat"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_makes_errors(kind: str, natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    ids = english_tokenizer.encode(TEXT * 2)
    wrong = [english_tokenizer.decode(natural.wrong(ids, 4000, seed, rates(0.1, **{kind: 1.0}))) for seed in range(20)]
    assert sum(text != TEXT * 2 for text in wrong) >= 18


@given(seed=st.integers(-(2**63), 2**63 - 1), start=st.integers(0, 50), rate=st.floats(0, 1))
def test_words_without_an_error_keep_their_ids(
    natural: NaturalTexts, english_tokenizer: Tokenizer, seed: int, start: int, rate: float
) -> None:
    """In any text cut anywhere: what is written is what the tokenizer would write, and fits."""
    ids = english_tokenizer.encode(TEXT)[start : start + 60]
    before = list(ids)
    wrong = natural.wrong(ids, 64, seed, rates(rate))
    assert ids == before
    assert len(wrong) <= 64
    assert wrong == natural.wrong(ids, 64, seed, rates(rate))
    text, made = english_tokenizer.decode(ids), english_tokenizer.decode(wrong)
    assert english_tokenizer.encode(made) == wrong or english_tokenizer.encode(text) != ids
    if rate == 0:
        assert wrong == ids


def test_one_error_leaves_all_other_words_byte_equal(natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    ids = english_tokenizer.encode(TEXT)
    one = Rates.of(0.9 / len(TEXT.split()), 0.9 / len(TEXT.split()), NaturalErrors().weights)
    changed = 0
    for seed in range(200):
        made = english_tokenizer.decode(natural.wrong(ids, 4000, seed, one)).split(" ")
        right = TEXT.split(" ")
        front = alike(made, right)
        behind = alike(made[front:][::-1], right[front:][::-1])
        changed += front < len(right)
        assert len(right) - front - behind <= 2, " ".join(made)
    assert changed > 150


def test_rates_and_weights_are_kept(natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    """The number of errors is near the rate; a kind is as frequent as its weight, where there are places for it."""
    ids = english_tokenizer.encode(TEXT)
    none = sum(natural.wrong(ids, 4000, seed, rates(0.01)) == ids for seed in range(300))
    assert 130 < none < 200  # 0.01 · 47 words: half an error; and sometimes no rule applies
    kinds = Counter()
    for seed in range(400):
        made = english_tokenizer.decode(natural.wrong(ids, 4000, seed, rates(0.03, doubled=1.0, missing=3.0)))
        kinds["doubled" if len(made.split()) > len(TEXT.split()) else "missing"] += made != TEXT
    assert 1.8 < kinds["missing"] / kinds["doubled"] < 5


def test_a_full_text_is_made_wrong_too(natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    """What is left out makes room for what is longer."""
    ids = english_tokenizer.encode(TEXT)
    made = [natural.wrong(ids, len(ids), seed, rates(0.1)) for seed in range(50)]
    assert all(len(wrong) <= len(ids) for wrong in made)
    assert sum(wrong != ids for wrong in made) > 45
    assert sum(len(wrong) == len(ids) for wrong in made) > 5


def test_edges_that_may_be_parts_of_words_stay(natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    ids = english_tokenizer.encode("ing the people to do the somethi")
    changed = 0
    for seed in range(50):
        wrong = natural.wrong(ids, 4000, seed, rates(1.0))
        first, last = english_tokenizer.encode("ing"), english_tokenizer.encode(" somethi")
        assert wrong[: len(first)] == first
        assert wrong[-len(last) :] == last
        changed += wrong != ids
    assert changed > 45


def test_what_is_no_text_stays(natural: NaturalTexts, english_tokenizer: Tokenizer) -> None:
    whole = english_tokenizer.encode("x = f(1), 日本 a.b.c é https://a.b/c 3rd")
    assert natural.wrong(whole, 4000, 1, rates(1.0)) == whole
    assert natural.wrong(whole[:-1][1:], 4000, 1, rates(1.0)) == whole[:-1][1:]
    assert natural.wrong([], 10, 1, rates(1.0)) == []


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, english_tokenizer: Tokenizer) -> None:
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    with pytest.raises(ValueError, match=r"corruption.natural needs lemminflect: pip install 'dualmask\[english\]'"):
        NaturalTexts(english_tokenizer)


def test_a_share_without_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"share=0.5, but article"):
        NaturalErrors(share=0.5, **dict.fromkeys(KINDS, 0.0))
    with pytest.raises(ValueError, match=r"rate_low=0.3 exceeds rate_high=0.1"):
        NaturalErrors(rate_low=0.3, rate_high=0.1)
