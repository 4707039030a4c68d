"""Which forms of an English word are confused with each other: singular and plural, tenses, adjective and adverb."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Set

from dualmask.core import english

SHORTEST = 3  # letters of a stem that is inflected by rule: shorter pieces are seldom words
NO_NOUN = ("able", "ible", "al", "ed", "ful", "ic", "ing", "ive", "less", "ly", "ous", "s", "wise")

_SINGLE_VOWEL = re.compile("[^aeiou]*[aeiou][^aeiouwxy]")  # "run", "stop", but not "read" or "show"


def families(words: Set[str]) -> dict[str, list[str]]:
    """The other forms of each word, sorted; lower case. ``words``: of the vocabulary, which tell verbs from nouns.

    A word is inflected as a verb if it is a listed one, or if ``words`` have it with -ed or -ing, and as an adjective
    likewise. What is left are nouns.
    """
    sets = [*english.VERBS_IRREGULAR, *english.NOUNS_IRREGULAR, *english.COMPARATIVES]
    for base in words | english.VERBS | english.ADJECTIVES:
        if _is_stem(base, words):
            sets.append([base, *_regular(base, words)])
    forms: dict[str, set[str]] = defaultdict(set)
    for alike in sets:
        for word in alike:
            forms[word].update(alike)
    return {word: sorted(alike - {word}) for word, alike in forms.items() if len(alike) > 1}


def is_noun(word: str, words: Set[str]) -> bool:
    """Whether nothing speaks against it: no listed word of another kind, no usual ending of one."""
    if word in english.NOUNS:
        return True
    return word not in _NO_NOUNS and not word.endswith(NO_NOUN) and _is_stem(word, words)


def is_verb(word: str, words: Set[str]) -> bool:
    """Whether it is a listed one or ``words`` have it with -ed or -ing."""
    return word in _VERBS or past(word) in words or participle(word) in words


def plural(word: str) -> str:
    """Also the third person of a verb."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    return word[:-1] + "ies" if _ends_in_consonant_y(word) else word + "s"


def past(word: str) -> str:
    if word.endswith("e"):
        return word + "d"
    return word[:-1] + "ied" if _ends_in_consonant_y(word) else _doubled(word) + "ed"


def participle(word: str) -> str:
    if word.endswith("ie"):
        return word[:-2] + "ying"
    silent = word.endswith("e") and not word.endswith(("ee", "oe", "ye"))
    return word[:-1] + "ing" if silent else _doubled(word) + "ing"


def adverb(word: str) -> str:
    if word.endswith("le"):
        return word[:-1] + "y"
    if word.endswith("y"):
        return word[:-1] + "ily"
    return word + ("ally" if word.endswith("ic") else "y" if word.endswith("ll") else "ly")


def _words(sets: Iterable[list[str]]) -> set[str]:
    return {word for alike in sets for word in alike}


_CLOSED = _words(english.CLASSES)
_VERBS = english.VERBS | _words(english.VERBS_IRREGULAR)
_COMPARED = _words(english.COMPARATIVES)
_IRREGULAR = _words([*english.VERBS_IRREGULAR, *english.NOUNS_IRREGULAR, *english.COMPARATIVES])
_NO_NOUNS = english.ADJECTIVES | english.UNINFLECTED | english.OMITTED | _CLOSED | _COMPARED


def _is_stem(word: str, words: Set[str]) -> bool:
    """Whether ``word`` is long enough, has a vowel and is no part of a word only, like "propagat" or "applie"."""
    usual = len(word) >= SHORTEST and re.search("[aeiouy]", word) is not None and word not in _CLOSED
    wholes = [word + "e", word[:-2] + "y"] if word.endswith("ie") else [word + "e"]
    return usual and not any(whole in words or whole in english.VERBS for whole in wholes)


def _regular(base: str, words: Set[str]) -> list[str]:
    """The forms of ``base`` by rule, as far as ``base`` looks like a word that has them."""
    forms = []
    if base not in _IRREGULAR and is_verb(base, words):
        forms += [plural(base), past(base), participle(base)]
    elif base not in _IRREGULAR and is_noun(base, words):
        forms.append(plural(base))
    if base in english.ADJECTIVES or (adverb(base) in words and not base.endswith("ly")):
        forms.append(adverb(base))
    return [form for form in forms if form not in _CLOSED]


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2:-1] not in set("aeiou")


def _doubled(word: str) -> str:
    return word + word[-1] if word in english.DOUBLED or _SINGLE_VOWEL.fullmatch(word) else word
