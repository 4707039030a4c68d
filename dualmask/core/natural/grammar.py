"""Errors of grammar: articles, prepositions, number, forms of verbs, agreement, pronouns."""

from __future__ import annotations

from dualmask.core.natural import lists
from dualmask.core.natural.forms import Forms, forms
from dualmask.core.natural.rule import Draws, pick
from dualmask.core.natural.word import (
    Edit,
    Word,
    Words,
    after,
    at,
    before,
    begins_sentence,
    changed,
    left_out,
    put_before,
    put_behind,
)

NO_SUBJECT = lists.DETERMINERS | lists.PREPOSITIONS | lists.BE | lists.HAVE | lists.MODALS | lists.DO | {"to", ""}


def is_article(word: Word) -> bool:
    return word.lower in lists.ARTICLES


def article_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    return left_out(words, place)


def article_other(words: Words, place: int, draws: Draws) -> Edit | None:
    """a or an for the, the for a or an."""
    other = _indefinite(at(words, place + 1).lower) if words[place].lower == "the" else "the"
    return changed(words, place, other)


def article_sound(words: Words, place: int, draws: Draws) -> Edit | None:
    return changed(words, place, "an" if words[place].lower == "a" else "a")


def may_need_no_article(word: Word) -> bool:
    return word.opens and word.stem.islower() and bool(forms(word.lower).number)


def article_more(words: Words, place: int, draws: Draws) -> Edit | None:
    """In front of a noun that stands behind a preposition, a verb or a conjunction."""
    front = before(words, place)
    verb = forms(front).verb and not forms(front).adjective
    if not (front in lists.PREPOSITIONS or front in lists.JOINING or verb):
        return None
    found = forms(words[place].lower)
    return put_before(words, place, "the" if found.plural or draws() < 0.6 else _indefinite(words[place].lower))


def is_preposition(word: Word) -> bool:
    return word.lower in lists.PREPOSITIONS


def preposition_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    return None if begins_sentence(words, place) else left_out(words, place)


def preposition_other(words: Words, place: int, draws: Draws) -> Edit | None:
    return changed(words, place, pick(lists.PREPOSITIONS_ALIKE[words[place].lower], draws))


def has_its_own_object(word: Word) -> bool:
    return forms(word.lower).lemma in lists.TRANSITIVE


def preposition_more(words: Words, place: int, draws: Draws) -> Edit | None:
    """discuss about: behind a verb that has an object."""
    if after(words, place) in lists.DETERMINERS | lists.PLURAL | {"him", "her", "it", "them", "us", "me"}:
        return put_behind(words, place, lists.TRANSITIVE[forms(words[place].lower).lemma])
    return None


def has_number(word: Word) -> bool:
    return word.stem.islower() and bool(forms(word.lower).number)


def number_other(words: Words, place: int, draws: Draws) -> Edit | None:
    """Of a noun: a word that may also be a verb is one behind a determiner, a preposition or an adjective."""
    found, front = forms(words[place].lower), before(words, place)
    if found.verb and not (
        front in lists.DETERMINERS or front in lists.NUMBERS or front in lists.PREPOSITIONS or forms(front).adjective
    ):
        return None
    return changed(words, place, found.number)


def is_verb(word: Word) -> bool:
    return forms(word.lower).verb is not None


def verb_form(words: Words, place: int, draws: Draws) -> Edit | None:
    """Another form than what stands in front of it asks for: to, can, has, is, for."""
    front = before(words, place)
    if front in lists.ADVERBS and place > 1:
        front = before(words, place - 1)
    found = forms(words[place].lower)
    assert found.verb is not None
    if (front in lists.MODALS or front in lists.DO or front == "to") and "VB" in found.tags:
        wrong = ["VBG", "VBD", "VBZ", "VBZ", "VBN"]
    elif front in lists.HAVE and "VBN" in found.tags:
        wrong = ["VB", "VB", "VBG", "VBD"]
    elif front in lists.BE and ("VBG" in found.tags or "VBN" in found.tags):
        wrong = ["VB", "VB", "VBZ", "VBD" if "VBG" in found.tags else "VBG"]
    elif front in lists.PREPOSITIONS and "VBG" in found.tags:
        wrong = ["VB"]
    else:
        return None
    return _unless_equal(words, place, found.verb[pick(wrong, draws)])


def tense(words: Words, place: int, draws: Draws) -> Edit | None:
    """Past and present of a verb behind its subject; what surrounds it tells which."""
    found, front = forms(words[place].lower), before(words, place)
    assert found.verb is not None
    if not _behind_subject(front):
        return None
    if "VBD" in found.tags and "VB" not in found.tags:
        return _unless_equal(words, place, found.verb["VBZ" if front in lists.SINGULAR and draws() < 0.5 else "VB"])
    if found.tags & {"VBZ", "VBP"} and (front in lists.SINGULAR | lists.PLURAL):
        return _unless_equal(words, place, found.verb["VBD"])
    return None


def third_person(words: Words, place: int, draws: Draws) -> Edit | None:
    """The s of the present: he go, they goes."""
    found, front = forms(words[place].lower), before(words, place)
    assert found.verb is not None
    subject = forms(front)
    if "VBZ" in found.tags and (front in lists.SINGULAR or front in lists.RELATIVE or _noun(subject, plural=False)):
        return _unless_equal(words, place, found.verb["VB"])
    if "VBP" in found.tags and (front in lists.PLURAL or front in lists.RELATIVE or _noun(subject, plural=True)):
        return _unless_equal(words, place, found.verb["VBZ"])
    return None


def agrees(word: Word) -> bool:
    return word.lower in lists.AGREEING


def agreement(words: Words, place: int, draws: Draws) -> Edit | None:
    """is and are, was and were, has and have, does and do; not have behind to or a modal, where nothing agrees."""
    if before(words, place) in lists.MODALS | {"to"}:
        return None
    return changed(words, place, pick(lists.AGREEING[words[place].lower], draws))


def is_auxiliary(word: Word) -> bool:
    return word.lower in lists.BE or word.lower in lists.HAVE


def auxiliary_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    """In front of a participle: they going, it made."""
    if begins_sentence(words, place) or not forms(after(words, place)).tags & {"VBG", "VBN"}:
        return None
    return left_out(words, place)


def asks_for_infinitive(word: Word) -> bool:
    return word.lower == "to" or word.lower in lists.MODALS


def infinitive(words: Words, place: int, draws: Draws) -> Edit | None:
    """want go, can to go."""
    if "VB" not in forms(after(words, place)).tags:
        return None
    return left_out(words, place) if words[place].lower == "to" else put_behind(words, place, "to")


def is_pronoun(word: Word) -> bool:
    return word.lower in lists.PRONOUNS_ALIKE


def pronoun(words: Words, place: int, draws: Draws) -> Edit | None:
    other = pick(lists.PRONOUNS_ALIKE[words[place].lower], draws)
    text = words[place].having("I" if other == "i" else other)
    if words[place].stem == "I" and begins_sentence(words, place):
        text = words[place].having(other[0].upper() + other[1:])
    return Edit(place, place + 1, text)


def _indefinite(following: str) -> str:
    return "an" if following[:1] in set("aeiou") else "a"


def _noun(found: Forms, *, plural: bool) -> bool:
    return bool(found.number) and found.plural is plural


def _behind_subject(front: str) -> bool:
    return front in lists.SINGULAR | lists.PLURAL | lists.RELATIVE or bool(
        front not in NO_SUBJECT and forms(front).number
    )


def _unless_equal(words: Words, place: int, stem: str) -> Edit | None:
    return None if stem == words[place].lower else changed(words, place, stem)
