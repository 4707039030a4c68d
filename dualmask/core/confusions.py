"""Errors that people really write, as a table over word pieces: wrong forms, confused, missing and superfluous words.

``ops.corruption`` looks such errors up. A piece is confused only where it is a whole word, or a suffix behind a stem:
``Confusions.fits`` tells by the neighbours of a token.
"""

# V vocabulary, N variants, P pieces, B batch, T tokens

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core import english
from dualmask.core.inflection import families, is_noun, is_verb
from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer

# Shares of the kinds of errors of one piece, as far as it has them.
NOTHING = "nothing"  # a piece with rare errors only has variants that are none
SHARES = {
    "class": 4.0,
    "form": 4.0,
    "confusable": 3.0,
    "missing": 2.0,
    "homophone": 0.7,
    "more": 0.6,
    "case": 0.4,
    NOTHING: 3.0,
}
RARE = {"homophone", "more", "case"}
COMPANIONS = ("class", "form", "confusable", "homophone", "case")

# An error that stands twice is twice as likely.
SIGNS = {
    ",": ["", "", "", "", ".", ";", ":"],
    ".": ["", "", "", ",", ",", ";", ":"],
    ";": ["", ",", ",", ",", ":", "."],
    ":": ["", ",", ";", ";", "."],
}
SUFFIXES = {
    "s": ["", "", "", "'s"],
    "es": ["", "s"],
    "ies": ["y", "ys", "ied"],
    "ed": ["ing", "s", ""],
    "ied": ["y", "ies"],
    "d": ["", "s"],
    "ing": ["ed", "s", ""],
    "ly": [""],
}


@dataclass(frozen=True)
class Confusions:
    """What each piece is confused with, and where it may be."""

    ids: Tensor  # [V, N, P] int64, -1 behind
    count: Tensor  # [V, N] int64 pieces of a variant: 0 leaves the piece out; -1: there is no variant
    goes_on: Tensor  # [V] bool: written against the token before, the piece belongs to its word
    open_end: Tensor  # [V] bool: a piece that goes on belongs to this one's word
    suffix: Tensor  # [V] bool: the variants are those of a suffix
    stem: Tensor  # [V] bool: a suffix may stand behind

    def fits(self, tokens: Tensor) -> Tensor:
        """[B, T] bool: tokens that are a whole word or sign, or a suffix that ends a word."""
        before, after = pad(tokens, (1, 0))[:, :-1], pad(tokens, (0, 1))[:, 1:]  # PAD has no text
        alone = ~(self.goes_on[tokens] & self.open_end[before])
        return torch.where(self.suffix[tokens], self.stem[before], alone) & ~self.goes_on[after]

    def to(self, device: torch.device) -> Confusions:
        return Confusions(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def confusion_table(tokenizer: Tokenizer, variants: int = 12, pieces: int = 4, seed: int = 0) -> Confusions:
    """The confusions of each piece; variants repeat according to ``SHARES``, to fill the table.

    The ids of a variant decode to the wrong text, with the leading space of the piece.
    """
    rng = random.Random(seed)
    texts = _texts(tokenizer)
    lexicon = _Lexicon(texts.values())
    table = np.full((tokenizer.vocab_size, variants, pieces), -1)
    count = np.full((tokenizer.vocab_size, variants), -1)
    for index, text in texts.items():
        errors = _encoded(tokenizer, lexicon.errors(text), pieces)
        for row, ids in _apportioned(errors, variants, rng):
            table[index, row, : len(ids)] = ids
            count[index, row] = len(ids)
    suffix = [texts.get(index) in SUFFIXES for index in range(tokenizer.vocab_size)]
    stem = [lexicon.is_stem(texts.get(index, "")) for index in range(tokenizer.vocab_size)]
    return _confusions(tokenizer, table, count, suffix, stem)


def companion_table(tokenizer: Tokenizer) -> Confusions:
    """The words of one piece that may be meant where one of one piece stands: its other forms, those of its class and
    those it is confused with, each once. P is 1."""
    texts = _texts(tokenizer)
    lexicon, index_of = _Lexicon(texts.values()), {text: index for index, text in texts.items()}
    found: dict[int, list[int]] = {}
    for index, text in texts.items():
        errors = {} if text in SIGNS or text in SUFFIXES else lexicon.errors(text)
        alike = (other for kind in COMPANIONS for other in errors.get(kind, []))
        found[index] = sorted({index_of[other] for other in alike if other in index_of} - {index})
    table = np.full((tokenizer.vocab_size, max(map(len, found.values()), default=0) or 1, 1), -1)
    for index, others in found.items():
        table[index, : len(others), 0] = others
    nothing = [False] * tokenizer.vocab_size
    return _confusions(tokenizer, table, np.where(table[..., 0] >= 0, 1, -1), nothing, nothing)


def _texts(tokenizer: Tokenizer) -> dict[int, str]:
    return {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size) if index not in SPECIAL_IDS}


def _confusions(
    tokenizer: Tokenizer, table: np.ndarray, count: np.ndarray, suffix: Sequence[bool], stem: Sequence[bool]
) -> Confusions:
    ends = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
    return Confusions(
        ids=torch.from_numpy(table),
        count=torch.from_numpy(count),
        goes_on=torch.tensor([_in_word(content[:1], b"_'([=/-") for content in ends]),
        open_end=torch.tensor([_in_word(content[-1:], b"_'([=/-.") for content in ends]),
        suffix=torch.tensor(suffix),
        stem=torch.tensor(stem),
    )


class _Lexicon:
    """The words of a vocabulary, and what each of them is confused with."""

    def __init__(self, texts: Iterable[str]) -> None:
        whole = [text.removeprefix(" ") for text in texts if text.startswith(" ") or text.istitle()]
        self.words = {word.lower() for word in whole if word.isalpha() and word.isascii()}
        self.names = {word for word in whole if word.istitle()} - {word.title() for word in whole if word.islower()}
        self.forms = families(self.words)
        self.classes = _companions(english.CLASSES)
        self.confusables = _companions(english.CONFUSABLES)
        self.homophones = _companions(english.HOMOPHONES)

    def errors(self, text: str) -> dict[str, list[str]]:
        """Wrong texts by kind of error; empty for a piece that is no word, suffix or sign."""
        if alike := (SIGNS | SUFFIXES).get(text):
            return {"form": alike}
        space, word = (" ", text[1:]) if text.startswith(" ") else ("", text)
        if not (word.isalpha() and word.isascii() and (word.istitle() or (space and word.islower()))):
            return {}
        errors = self._word_errors(word.lower())
        if space and word in self.names:  # of which nobody writes the plural
            errors["form"] = []
        if space and word.islower():
            errors["more"] = self._superfluous(word)
        wrong = {kind: [space + self._cased(other, word) for other in others] for kind, others in errors.items()}
        if space:
            wrong["missing"] = [""] if word in english.OMITTED else []
            wrong["case"] = [space + word[0].swapcase() + word[1:]] if len(word) > 1 or word in "aI" else []
        return wrong

    def is_stem(self, text: str) -> bool:
        """Whether a suffix behind ``text`` is an inflection: not so for "thi" + "s"."""
        word = text.removeprefix(" ").lower()
        usual = len(word) >= 3 and word.isalpha() and word.isascii() and text != word
        return usual and all(word + suffix not in self.classes for suffix in SUFFIXES)

    def _word_errors(self, word: str) -> dict[str, list[str]]:
        return {
            "class": self.classes.get(word, []),
            "form": self.forms.get(word, []),
            "confusable": self.confusables.get(word, []),
            "homophone": self.homophones.get(word, []),
        }

    def _superfluous(self, word: str) -> list[str]:
        """An article before, or a sign in or behind a noun."""
        if len(word) > 3 and is_noun(word, self.words) and not is_verb(word, self.words):
            return [("an " if word[0] in "aeiou" else "a ") + word, "the " + word, word + ","]
        if word.endswith("s") and word[:-1] in self.forms.get(word, []):
            return ["the " + word, word[:-1] + "'s"]
        return []

    @staticmethod
    def _cased(other: str, word: str) -> str:
        """``other`` with the capital of ``word``; "I" always has one, and lends it to nobody."""
        if other == "i" or (word != "I" and word[0].isupper()):
            return other[0].upper() + other[1:]
        return other


def _companions(sets: Iterable[list[str]]) -> Mapping[str, list[str]]:
    """The other words of the sets of each word; one of several sets as often as it is there."""
    companions: dict[str, list[str]] = defaultdict(list)
    for alike in sets:
        for word in alike:
            companions[word] += [other for other in alike if other != word]
    return companions


def _encoded(tokenizer: Tokenizer, errors: Mapping[str, list[str]], pieces: int) -> dict[str, list[list[int]]]:
    """The ids of the errors that are short enough; kinds of which nothing is left are left out."""
    encoded = {kind: [tokenizer.encode(text) for text in texts] for kind, texts in errors.items()}
    short = {kind: [ids for ids in texts if len(ids) <= pieces] for kind, texts in encoded.items()}
    return {kind: texts for kind, texts in short.items() if texts}


def _apportioned(
    errors: Mapping[str, list[list[int]]], number: int, rng: random.Random
) -> Iterable[tuple[int, list[int]]]:
    """``number`` rows of a table, those of each kind by its share (Sainte-Laguë): row and error."""
    kinds = list(errors) if not RARE.issuperset(errors) else [*errors, NOTHING]
    seats = sorted(((n + 0.5) / SHARES[kind], kind) for kind in kinds for n in range(number))[:number]
    shuffled = {kind: rng.sample(wrong, len(wrong)) for kind, wrong in errors.items()}
    taken: dict[str, int] = defaultdict(int)
    for row, (_, kind) in enumerate(seats):
        if kind != NOTHING:
            yield row, shuffled[kind][taken[kind] % len(shuffled[kind])]
            taken[kind] += 1


def _in_word(end: bytes, signs: bytes) -> bool:
    """Whether the byte at an end of a piece may stand inside of a word or of a name of a program."""
    return bool(end) and (end.isalnum() or end in signs or end >= b"\x80")
