"""Errors that people really write, as a table over word pieces: wrong forms, confused, missing and superfluous words.

``ops.corruption`` looks such errors up. A piece is confused only where it is a whole word, or a suffix behind a stem:
``Confusions.fits`` tells by the neighbours of a token.
"""

# V vocabulary, N variants, P pieces, B batch, T tokens

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core import english
from dualmask.core.inflection import families, is_noun
from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer

# Shares of the kinds of errors of one piece, as far as it has them.
SHARES = {"class": 4.0, "form": 4.0, "confusable": 3.0, "missing": 2.0, "more": 0.7, "case": 0.7}

PUNCTUATION = {",": ".;", ".": ",;:", ";": ",.:", ":": ",;."}
SUFFIXES = {
    "s": ["", "", "ed"],
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
    count: Tensor  # [V, N] int64 pieces of a variant: 0 leaves the piece out; -1: the piece has no confusion
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
    """The confusions of each piece; each variant is as likely as the others, and repeated to fill the table.

    The ids of a variant decode to the wrong text, with the leading space of the piece.
    """
    rng = random.Random(seed)
    texts = {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size) if index not in SPECIAL_IDS}
    lexicon = _Lexicon(texts.values())
    rows = [[[-1] * pieces] * variants] * tokenizer.vocab_size
    counts = [[-1] * variants] * tokenizer.vocab_size
    for index, text in texts.items():
        errors = {kind: _short(tokenizer, wrong, pieces) for kind, wrong in lexicon.errors(text).items()}
        if chosen := _apportioned({kind: wrong for kind, wrong in errors.items() if wrong}, variants, rng):
            rows[index] = [ids + [-1] * (pieces - len(ids)) for ids in chosen]
            counts[index] = [len(ids) for ids in chosen]
    ends = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
    return Confusions(
        ids=torch.tensor(rows),
        count=torch.tensor(counts),
        goes_on=torch.tensor([_in_word(content[:1], b"_'([=/-") for content in ends]),
        open_end=torch.tensor([_in_word(content[-1:], b"_'([=/-.") for content in ends]),
        suffix=torch.tensor([texts.get(index) in SUFFIXES for index in range(tokenizer.vocab_size)]),
        stem=torch.tensor([lexicon.is_stem(texts.get(index, "")) for index in range(tokenizer.vocab_size)]),
    )


class _Lexicon:
    """The words of a vocabulary, and what each of them is confused with."""

    def __init__(self, texts: Iterable[str]) -> None:
        whole = (text.removeprefix(" ") for text in texts if text.startswith(" ") or text.istitle())
        self.words = {word.lower() for word in whole if word.isalpha() and word.isascii()}
        self.forms = families(self.words)
        self.classes = _companions(english.CLASSES)
        self.confusables = _companions(english.CONFUSABLES)

    def errors(self, text: str) -> dict[str, list[str]]:
        """Wrong texts by kind of error; empty for a piece that is no word, suffix or sign."""
        if text in PUNCTUATION:
            return {"class": list(PUNCTUATION[text]), "missing": [""] if text in ",." else []}
        if text in SUFFIXES:
            return {"form": SUFFIXES[text]}
        space, word = (" ", text[1:]) if text.startswith(" ") else ("", text)
        if not (word.isalpha() and word.isascii() and (word.istitle() or (space and word.islower()))):
            return {}
        errors = self._word_errors(word.lower(), bool(space))
        wrong = {kind: [space + self._cased(other, word) for other in others] for kind, others in errors.items()}
        if space:
            wrong["missing"] = [""] if word in english.OMITTED else []
            wrong["case"] = [space + word.swapcase()[:1] + word[1:]]
        return wrong

    def is_stem(self, text: str) -> bool:
        """Whether a suffix behind ``text`` is an inflection: not so for "thi" + "s"."""
        word = text.removeprefix(" ").lower()
        usual = len(word) >= 3 and word.isalpha() and word.isascii() and text != word
        return usual and all(word + suffix not in self.classes for suffix in SUFFIXES)

    def _word_errors(self, word: str, inside: bool) -> dict[str, list[str]]:
        errors = {
            "class": self.classes.get(word, []),
            "form": self.forms.get(word, []),
            "confusable": self.confusables.get(word, []),
        }
        if inside and len(word) > 3 and is_noun(word, self.words):
            article = "an " if word[0] in "aeiou" else "a "
            errors["more"] = [article + word, "the " + word]
        return errors

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


def _short(tokenizer: Tokenizer, texts: list[str], pieces: int) -> list[list[int]]:
    encoded = tokenizer.encode_lines(texts)
    return [ids for ids in encoded if len(ids) <= pieces]


def _apportioned(errors: Mapping[str, list[list[int]]], number: int, rng: random.Random) -> list[list[int]]:
    """``number`` errors, those of each kind by its share (Sainte-Laguë), in random order; [] if there are none."""
    seats = sorted(((n + 0.5) / SHARES[kind], kind) for kind in errors for n in range(number))[:number]
    shuffled = {kind: rng.sample(wrong, len(wrong)) for kind, wrong in errors.items()}
    taken: dict[str, int] = defaultdict(int)
    chosen = []
    for _, kind in seats:
        chosen.append(shuffled[kind][taken[kind] % len(shuffled[kind])])
        taken[kind] += 1
    return chosen


def _in_word(end: bytes, signs: bytes) -> bool:
    """Whether the byte at an end of a piece may stand inside of a word or of a name of a program."""
    return bool(end) and (end.isalnum() or end in signs or end >= b"\x80")
