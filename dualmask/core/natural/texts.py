"""Texts in token ids, made wrong at words: the ids of words without an error stay as they are."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from dualmask.core.natural.forms import check
from dualmask.core.natural.rule import Draws, Rule, pick
from dualmask.core.natural.rules import RULES
from dualmask.core.natural.word import Edit, Word
from dualmask.core.tokenizer import Tokenizer

RULES_TRIED = 3  # for one error, before there is none
PLACES_TRIED = 20  # for one rule: many need words of certain kinds around
KNOWN_WORDS = 1 << 17  # that are remembered, with the rules that may apply to them

_ALL_RULES: tuple[tuple[str, Rule], ...] = tuple((kind, rule) for kind, rules in RULES.items() for rule in rules)


@dataclass(frozen=True)
class Rates:
    """How many words are hit, and by what. limits: running sums of the weights of all rules."""

    low: float
    high: float
    limits: tuple[float, ...]

    @classmethod
    def of(cls, low: float, high: float, weights: Mapping[str, float]) -> Rates:
        """weights: by kind; those of its rules share its own."""
        share = {kind: weights[kind] / sum(rule.weight for rule in rules) for kind, rules in RULES.items()}
        return cls(low, high, tuple(accumulate(share[kind] * rule.weight for kind, rule in _ALL_RULES)))


class NaturalTexts:
    """Makes errors of words in texts of one tokenizer. A word is what stands between two blanks."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError where lemminflect is missing."""
        check()
        self._content = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
        self._begins = [content[:1].isspace() for content in self._content]
        self._encode = lru_cache(KNOWN_WORDS)(tokenizer.encode)
        self._known = lru_cache(KNOWN_WORDS)(self._word)

    def wrong(self, ids: Sequence[int], most: int, seed: int, rates: Rates) -> list[int]:
        """``ids``, without BOS and EOS, with errors; at most ``most`` of them. A function of its arguments."""
        if not ids:
            return []
        starts = [0, *(place for place in range(1, len(ids)) if self._begins[ids[place]]), len(ids)]
        read = [self._known(tuple(ids[start:end])) for start, end in pairwise(starts)]
        words, fits = [word for word, _ in read], [bits for _, bits in read]
        draws = random.Random(seed).random
        number = int((rates.low + (rates.high - rates.low) * draws()) * len(words) + draws())
        taken = _cut(words)
        written: list[_Written] = []
        for _ in range(number):
            if edit := _edit(words, fits, taken, rates, draws):
                taken[edit.first : edit.behind] = b"\1" * (edit.behind - edit.first)
                written.append(_Written(starts[edit.first], starts[edit.behind], self._encode(edit.text)))
        return _spliced(ids, _fitting(written, most - len(ids)))

    def _word(self, ids: tuple[int, ...]) -> tuple[Word, int]:
        """The word of these ids, and a bit for each rule that fits it."""
        try:
            word = Word.of(b"".join(self._content[index] for index in ids).decode())
        except UnicodeDecodeError:
            return Word("", "", "", ""), 0
        if not word.stem:
            return word, 0
        return word, sum(1 << number for number, (_, rule) in enumerate(_ALL_RULES) if rule.fits(word))


def _cut(words: Sequence[Word]) -> bytearray:
    """1 where a text that was cut anywhere may begin or end within a word, which then must stay as it is."""
    cut = bytearray(len(words))
    cut[0] = not (words[0].lead or words[0].stem[:1].isupper())
    cut[-1] |= not words[-1].ends_sentence
    return cut


def _edit(words: Sequence[Word], fits: Sequence[int], taken: bytearray, rates: Rates, draws: Draws) -> Edit | None:
    """An edit of words that no other one has changed."""
    for _ in range(RULES_TRIED):
        number = bisect(rates.limits, draws() * rates.limits[-1])
        places = [place for place, bits in enumerate(fits) if bits >> number & 1 and not taken[place]]
        write = _ALL_RULES[number][1].write
        for _ in range(PLACES_TRIED if places else 0):
            edit = write(words, pick(places, draws), draws)
            if edit and not any(taken[edit.first : edit.behind]) and edit.text != _text(words, edit):
                return edit
    return None


def _text(words: Sequence[Word], edit: Edit) -> str:
    return "".join(word.text for word in words[edit.first : edit.behind])


class _Written(NamedTuple):
    """Ids in the place of the tokens [start, end)."""

    start: int
    end: int
    ids: list[int]

    @property
    def growth(self) -> int:
        return len(self.ids) - (self.end - self.start)


def _fitting(written: Iterable[_Written], room: int) -> list[_Written]:
    """Those for which there is room, in the order of the text: what makes it shorter makes room for the others."""
    kept = []
    for each in sorted(written, key=lambda each: each.growth):
        if each.growth <= room:
            room -= each.growth
            kept.append(each)
    return sorted(kept)


def _spliced(ids: Sequence[int], written: Iterable[_Written]) -> list[int]:
    parts: list[int] = []
    at = 0
    for start, end, made in written:
        parts += [*ids[at:start], *made]
        at = end
    return [*parts, *ids[at:]]
