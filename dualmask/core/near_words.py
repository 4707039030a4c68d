"""Known words that an unknown one may be a misspelling of."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from dualmask.core import english
from dualmask.core.inflection import past, plural
from dualmask.core.words import WordList

SHORTEST = 3  # letters: almost every shorter word is near some other one
LONG = 5  # letters, from which on two of them may be wrong
FREQUENT = 5000  # words, of which two written as one are told apart


# what an irregular word would be by rule → what it is
BY_RULE = {past(verb[0]): [form for form in verb[2:] if not form.endswith("ing")] for verb in english.VERBS_IRREGULAR}
BY_RULE |= {plural(noun[0]): noun[1:] for noun in english.NOUNS_IRREGULAR}


@dataclass(frozen=True)
class NearWord:
    """A word that may be meant; distance: letters that are wrong; log_rank: of its place among the frequent ones, which
    counts from 1. Where a blank is missing these are two words, and the sum of both."""

    word: str
    distance: int
    log_rank: float


class NearWords:
    """The words of a list within one letter substituted, dropped, inserted or swapped with its neighbour (optimal
    string alignment); of a word of at least LONG letters within two; pairs of frequent words that miss the blank
    between them; and the forms of an irregular word that was inflected by rule ("teached", "childs")."""

    def __init__(self, words: WordList, most: int = 16) -> None:
        """most: words given; the nearest, and of equally near ones the most frequent."""
        self._most = most
        self._log_rank = {word: math.log(rank) for rank, word in enumerate(words.words, 1)}
        self._frequent = frozenset(words.words[:FREQUENT])
        by_length: dict[int, list[str]] = defaultdict(list)
        for word in words.words:
            by_length[len(word)].append(word)
        self._by_length = {
            length: (alike, np.array([_letters(word) for word in alike], np.uint32))
            for length, alike in by_length.items()
        }

    def near(self, word: str) -> list[NearWord]:
        """The nearest first. With a capital if ``word`` has one."""
        lower = word[:1].lower() + word[1:]
        if len(word) < SHORTEST:
            return []
        most_wrong = 1 if len(word) < LONG else 2
        choices = list(self._alike(lower, most_wrong))
        found = process.extract(lower, choices, scorer=OSA.distance, score_cutoff=most_wrong, limit=None)
        near = [NearWord(known, int(distance), self._log_rank[known]) for known, distance, _ in found]
        near = [*near, *self._parted(lower), *self._irregular(lower)]
        near.sort(key=lambda each: (each.distance, each.log_rank))
        if word[:1].isupper():
            near = [replace(each, word=each.word[:1].upper() + each.word[1:]) for each in near]
        nearest: dict[str, NearWord] = {}
        for each in near:
            nearest.setdefault(each.word, each)
        return list(nearest.values())[: self._most]

    def _alike(self, word: str, most_wrong: int) -> Iterator[str]:
        """The words that may be so near: a wrong letter changes the length by one at most, and two of the kinds of
        letters that there are."""
        own = np.uint32(_letters(word))
        for length in range(len(word) - most_wrong, len(word) + most_wrong + 1):
            if length in self._by_length:
                words, letters = self._by_length[length]
                near = np.bitwise_count(letters ^ own) <= 2 * most_wrong
                yield from (words[place] for place in near.nonzero()[0].tolist())

    def _irregular(self, word: str) -> list[NearWord]:
        forms = BY_RULE.get(word, ())
        return [NearWord(form, 1, self._log_rank[form]) for form in forms if form in self._log_rank]

    def _parted(self, word: str) -> list[NearWord]:
        parts = ((word[:place], word[place:]) for place in range(1, len(word)))
        return [
            NearWord(f"{left} {right}", 1, self._log_rank[left] + self._log_rank[right])
            for left, right in parts
            if left in self._frequent and right in self._frequent
        ]


def _letters(word: str) -> int:
    """Which letters there are, as bits; some share one."""
    return functools.reduce(lambda bits, letter: bits | 1 << ord(letter) % 32, word, 0)
