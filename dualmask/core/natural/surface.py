"""Errors that are none of grammar: wrong words, marks, capitals; words joined, parted, doubled, missing or swapped."""

from __future__ import annotations

from dualmask.core import english
from dualmask.core.inflection import adverb
from dualmask.core.natural import lists
from dualmask.core.natural.forms import forms
from dualmask.core.natural.rule import Draws, pick
from dualmask.core.natural.word import Edit, Word, Words, at, begins_sentence, changed, left_out

ADVERB_OF = {adjective: adverb(adjective) for adjective in english.ADJECTIVES}
ADJECTIVE_OF = {word: adjective for adjective, word in ADVERB_OF.items()}
LONGEST_JOINED = 12  # letters
IN_FRONT_OF_NO_COMMA = frozenset(["that", "because", "if", "when", "of", "than", "who", "which"])


def is_confusable(word: Word) -> bool:
    return word.lower in lists.CONFUSED


def confusable(words: Words, place: int, draws: Draws) -> Edit | None:
    return changed(words, place, pick(lists.CONFUSED[words[place].lower], draws))


def has_homophone(word: Word) -> bool:
    return word.lower in lists.SOUNDING_ALIKE


def homophone(words: Words, place: int, draws: Draws) -> Edit | None:
    return changed(words, place, pick(lists.SOUNDING_ALIKE[words[place].lower], draws))


def has_class(word: Word) -> bool:
    return word.lower in lists.CLASSES_ALIKE


def of_class(words: Words, place: int, draws: Draws) -> Edit | None:
    """this and these, many and much, no and not."""
    return changed(words, place, pick(lists.CLASSES_ALIKE[words[place].lower], draws))


def has_manner(word: Word) -> bool:
    return word.lower in ADVERB_OF or word.lower in ADJECTIVE_OF or forms(word.lower).comparative


def manner(words: Words, place: int, draws: Draws) -> Edit | None:
    """The adjective for the adverb and the other way round; more better."""
    word = words[place].lower
    return changed(words, place, ADVERB_OF.get(word) or ADJECTIVE_OF.get(word) or f"more {word}")


def has_comma(word: Word) -> bool:
    return word.tail == ","


def comma_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    """The last comma of a text shows nothing: there has to be a word behind."""
    return None if not at(words, place + 1).stem else _with_tail(words, place, "")


def has_end(word: Word) -> bool:
    return bool(word.stem) and word.tail in (".", "?", "!")


def end_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    return _with_tail(words, place, "")


def comma_for_end(words: Words, place: int, draws: Draws) -> Edit | None:
    return _with_tail(words, place, ",") if at(words, place + 1).stem[:1].isupper() else None


def has_no_mark(word: Word) -> bool:
    return bool(word.stem) and not word.tail


def comma_more(words: Words, place: int, draws: Draws) -> Edit | None:
    """In front of that, because, of and the like, where learners put one."""
    following = at(words, place + 1)
    return _with_tail(words, place, ",") if following.opens and following.lower in IN_FRONT_OF_NO_COMMA else None


def has_apostrophe(word: Word) -> bool:
    return "'" in word.lower


def apostrophe_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    stem = words[place].stem.replace("'", "").replace("’", "")
    return Edit(place, place + 1, words[place].lead + words[place].head + stem + words[place].tail)


def has_capital(word: Word) -> bool:
    return word.stem == "I" or (word.stem[:1].isupper() and word.stem[1:].islower())


def capital_left_out(words: Words, place: int, draws: Draws) -> Edit | None:
    word = words[place]
    return Edit(place, place + 1, word.lead + word.head + word.stem.lower() + word.tail)


def has_no_capital(word: Word) -> bool:
    return len(word.stem) > 3 and word.stem.islower() and bool(forms(word.lower).number)


def capital_more(words: Words, place: int, draws: Draws) -> Edit | None:
    word = words[place]
    return Edit(place, place + 1, word.lead + word.head + word.stem.capitalize() + word.tail)


def may_be_missing(word: Word) -> bool:
    return word.lower in lists.OMITTED


def missing(words: Words, place: int, draws: Draws) -> Edit | None:
    return left_out(words, place)


def doubled(words: Words, place: int, draws: Draws) -> Edit | None:
    """The second one in small letters, if the first is not a name."""
    word = words[place]
    copy = word.stem.lower() if begins_sentence(words, place) and word.stem != "I" else word.stem
    return Edit(place, place + 1, f"{word.text} {copy}")


def joined(words: Words, place: int, draws: Draws) -> Edit | None:
    """Two words that people write as one; seldom two others."""
    word, following = words[place], at(words, place + 1)
    if word.tail or not following.opens or not following.stem.islower():
        return None
    together = word.stem + following.stem
    if f"{word.lower} {following.lower}" not in lists.JOINED and (draws() > 0.3 or len(together) > LONGEST_JOINED):
        return None
    return Edit(place, place + 2, word.lead + word.head + together + following.tail)


def is_compound(word: Word) -> bool:
    return word.lower in lists.COMPOUNDS


def parted(words: Words, place: int, draws: Draws) -> Edit | None:
    return changed(words, place, lists.COMPOUNDS[words[place].lower])


def is_adverb(word: Word) -> bool:
    return word.lower in lists.ADVERBS and word.lead == " " and not word.head


def swapped(words: Words, place: int, draws: Draws) -> Edit | None:
    """An adverb and the word behind it."""
    word, following = words[place], at(words, place + 1)
    if word.tail or not following.opens or not word.stem.islower() or not following.stem.islower():
        return None
    return Edit(place, place + 2, f" {following.stem} {word.stem}{following.tail}")


def _with_tail(words: Words, place: int, tail: str) -> Edit | None:
    word = words[place]
    text = word.lead + word.head + word.stem + tail
    return Edit(place, place + 1, text) if word.stem or not tail else None
