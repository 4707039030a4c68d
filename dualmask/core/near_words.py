"""Known words that an unknown one may be a misspelling of."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain

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
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word in words.words:
            self._by_length[len(word)].append(word)

    def near(self, word: str) -> list[NearWord]:
        """The nearest first. With a capital if ``word`` has one."""
        lower = word[:1].lower() + word[1:]
        if len(word) < SHORTEST:
            return []
        most_wrong = 1 if len(word) < LONG else 2
        lengths = range(len(word) - most_wrong, len(word) + most_wrong + 1)
        choices = list(chain.from_iterable(self._by_length.get(length, ()) for length in lengths))
        found = process.extract(lower, choices, scorer=OSA.distance, score_cutoff=most_wrong, limit=None)
        near = [NearWord(known, int(distance), self._log_rank[known]) for known, distance, _ in found]
        near = [*near, *self._parted(lower), *self._irregular(lower)]
        near = sorted(dict.fromkeys(near), key=lambda each: (each.distance, each.log_rank))[: self._most]
        if not word[:1].isupper():
            return near
        return [NearWord(each.word[:1].upper() + each.word[1:], each.distance, each.log_rank) for each in near]

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
