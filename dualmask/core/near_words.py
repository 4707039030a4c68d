"""Known words that an unknown one may be a misspelling of."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from dualmask.core import english
from dualmask.core.inflection import past, plural
from dualmask.core.words import WordList

SHORTEST = 3  # letters: almost every shorter word is near some other one
LONG = 5  # letters, from which on two of them may be wrong
FREQUENT = 5000  # words, of which two written as one are told apart

# Nats, tuned on learners' sentences. Of the writer: for each wrong letter; if the first is wrong; if the last is; for
# each wrong consonant (doubled ones count once). Of the word: P is about 1 / rank (Zipf), by this power.
LETTER, FIRST, LAST, CONSONANT, RANK = 4.0, 1.5, 0.5, 0.5, 0.5

_NO_CONSONANT = re.compile(r"[aeiouy'’ ]|(.)(?=\1)")

# what an irregular word would be by rule → what it is
BY_RULE = {past(verb[0]): [form for form in verb[2:] if not form.endswith("ing")] for verb in english.VERBS_IRREGULAR}
BY_RULE |= {plural(noun[0]): noun[1:] for noun in english.NOUNS_IRREGULAR}


@dataclass(frozen=True)
class NearWord:
    """A word that may be meant, or two where a blank is missing. log_prob: log P(written so | meant) + log P(meant), up
    to a constant."""

    word: str
    log_prob: float


class NearWords:
    """The words of a list within one letter substituted, dropped, inserted or swapped with its neighbour (optimal
    string alignment); of a word of at least LONG letters within two; pairs of frequent words that miss the blank
    between them; and the forms of an irregular word that was inflected by rule ("teached", "childs")."""

    def __init__(self, words: WordList, most: int = 16) -> None:
        """most: words given, the likeliest."""
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
        """The likeliest first. With a capital if ``word`` has one."""
        lower = word[:1].lower() + word[1:]
        if len(word) < SHORTEST:
            return []
        most_wrong = 1 if len(word) < LONG else 2
        choices = list(self._alike(lower, most_wrong))
        found = process.extract(lower, choices, scorer=OSA.distance, score_cutoff=most_wrong, limit=None)
        near = [NearWord(known, self._log_prob(lower, known, int(distance))) for known, distance, _ in found]
        near = sorted([*near, *self._parted(lower), *self._irregular(lower)], key=lambda each: -each.log_prob)
        if word[:1].isupper():
            near = [NearWord(each.word[:1].upper() + each.word[1:], each.log_prob) for each in near]
        likeliest: dict[str, NearWord] = {}
        for each in near:
            likeliest.setdefault(each.word, each)
        return list(likeliest.values())[: self._most]

    def _log_prob(self, written: str, meant: str, distance: int) -> float:
        ends = FIRST * (written[0] != meant[0].lower()) + LAST * (written[-1] != meant[-1].lower())
        consonants = CONSONANT * OSA.distance(*(_NO_CONSONANT.sub("", word.lower()) for word in (written, meant)))
        return -LETTER * distance - ends - consonants - RANK * self._log_rank[meant]

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
        return [NearWord(form, -LETTER - RANK * self._log_rank[form]) for form in forms if form in self._log_rank]

    def _parted(self, word: str) -> list[NearWord]:
        parts = ((word[:place], word[place:]) for place in range(1, len(word)))
        return [
            NearWord(f"{left} {right}", -LETTER - RANK * (self._log_rank[left] + self._log_rank[right]))
            for left, right in parts
            if left in self._frequent and right in self._frequent
        ]


def _letters(word: str) -> int:
    """Which letters there are, as bits; some share one."""
    return functools.reduce(lambda bits, letter: bits | 1 << ord(letter) % 32, word, 0)
