"""Forms by rule and by list, and which words have them."""

import pytest

from dualmask.core import english
from dualmask.core.inflection import adverb, families, is_noun, is_verb, participle, past, plural


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("value", "values"),
        ("class", "classes"),
        ("box", "boxes"),
        ("match", "matches"),
        ("entry", "entries"),
        ("key", "keys"),
    ],
)
def test_plurals(word, form):
    assert plural(word) == form


@pytest.mark.parametrize(
    ("word", "before", "now"),
    [
        ("return", "returned", "returning"),
        ("use", "used", "using"),
        ("stop", "stopped", "stopping"),
        ("show", "showed", "showing"),
        ("need", "needed", "needing"),
        ("apply", "applied", "applying"),
        ("play", "played", "playing"),
        ("refer", "referred", "referring"),
        ("enter", "entered", "entering"),
        ("agree", "agreed", "agreeing"),
        ("die", "died", "dying"),
    ],
)
def test_tenses(word, before, now):
    assert (past(word), participle(word)) == (before, now)


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("quick", "quickly"),
        ("easy", "easily"),
        ("possible", "possibly"),
        ("automatic", "automatically"),
        ("full", "fully"),
    ],
)
def test_adverbs(word, form):
    assert adverb(word) == form


WORDS = {
    "function",
    "return",
    "clone",
    "cloning",
    "the",
    "thi",
    "propagat",
    "propagate",
    "applie",
    "apply",
    "only",
    "s",
}


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("went", ["go", "goes", "going", "gone"]),
        ("child", ["children"]),
        ("function", ["functions"]),  # a noun: nothing says otherwise
        ("functions", ["function"]),
        ("returning", ["return", "returned", "returns"]),  # a listed verb
        ("clone", ["cloned", "clones", "cloning"]),  # a verb by its participle
        ("quickly", ["quick"]),
        ("better", ["best", "good", "well"]),
    ],
)
def test_the_forms_of_a_word(word, forms):
    assert families(WORDS)[word] == forms


def test_what_is_no_word_has_no_forms():
    found = families(WORDS)
    assert not {"the", "thes", "this", "thi", "propagat", "propagats", "applie", "only", "s", "ss"} & set(found)
    assert all(word not in forms for word, forms in found.items())


def test_nouns_and_verbs():
    assert all(is_noun(word, WORDS) for word in ("table", "function"))
    assert not any(is_noun(word, WORDS) for word in ("which", "different", "quickly", "functional", "larger", "these"))
    assert [is_verb(word, WORDS) for word in ("clone", "go", "function")] == [True, True, False]


def test_the_lists_are_of_words():
    sets = [*english.CLASSES, *english.CONFUSABLES, *english.HOMOPHONES, *english.VERBS_IRREGULAR]
    for words in [*sets, *english.NOUNS_IRREGULAR, *english.COMPARATIVES]:
        assert len(words) > 1
        assert len(set(words)) == len(words)
        assert all(word.replace("'", "").isalpha() and word.islower() for word in words)
    assert len(english.CONFUSABLES) + len(english.HOMOPHONES) >= 60
    assert len(english.VERBS_IRREGULAR) >= 60
