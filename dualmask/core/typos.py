"""Misspellings of word pieces, encoded once: how ``ops.corruption`` changes characters without seeing text."""

# V vocabulary, N variants, P pieces

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict

import torch
from torch import Tensor

from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer

SHORTEST = 3  # letters: shorter words turn into other words
ATTEMPTS = 3  # tries a variant: a try may give the word itself, a known misspelling or too many pieces

Kin = dict[tuple[str, bool], list[str]]


def typo_table(tokenizer: Tokenizer, variants: int = 4, pieces: int = 4, seed: int = 0) -> Tensor:
    """[V, variants, pieces] int64: ids of misspellings of each piece, -1 behind them; all -1 where there are none.

    Words of at least SHORTEST letters are misspelt by one character substituted, left out or doubled, or by two
    neighbours swapped. In the place of the piece the ids decode to its misspelling, leading space included. A piece
    with fewer different misspellings than ``variants`` repeats them, so that each variant may be drawn.
    """
    rng = random.Random(seed)
    words = _words(tokenizer)
    kin = _kin(words)
    empty = [[-1] * pieces] * variants
    table = [empty] * tokenizer.vocab_size
    for index, word in words.items():
        found = _misspellings(tokenizer, word, kin, rng, variants, pieces)
        table[index] = [found[n % len(found)] for n in range(variants)] if found else empty
    return torch.tensor(table)


def _misspellings(
    tokenizer: Tokenizer, word: str, kin: Kin, rng: random.Random, variants: int, pieces: int
) -> list[list[int]]:
    """Up to ``variants`` different misspellings of ``word``, each ``pieces`` ids, -1 behind them."""
    found: dict[str, list[int]] = {}
    for _ in range(ATTEMPTS * variants):
        wrong = _misspell(word, kin, rng)
        if len(found) < variants and wrong != word and wrong not in found:
            ids = tokenizer.encode(wrong)
            if len(ids) <= pieces:
                found[wrong] = ids + [-1] * (pieces - len(ids))
    return list(found.values())


def _words(tokenizer: Tokenizer) -> dict[int, str]:
    """The pieces that are long enough words or parts of words, as they stand in a text: perhaps with a space first."""
    texts = {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size) if index not in SPECIAL_IDS}
    letters = {index: text.removeprefix(" ") for index, text in texts.items()}
    return {index: texts[index] for index, word in letters.items() if len(word) >= SHORTEST and word.isalpha()}


def _kind(letter: str) -> tuple[str, bool]:
    """Script ("LATIN", "CYRILLIC", …) and case."""
    return unicodedata.name(letter, "?").split()[0], letter.isupper()


def _kin(words: dict[int, str]) -> Kin:
    """The letters of each kind, as often as they occur in the words."""
    kin: Kin = defaultdict(list)
    for letter in "".join(words.values()):
        kin[_kind(letter)].append(letter)
    return kin


def _misspell(word: str, kin: Kin, rng: random.Random) -> str:
    """One random mistake in the letters of ``word``; now and then it leaves the word as it was."""
    place = rng.randrange(word.startswith(" "), len(word))
    head, letter, tail = word[:place], word[place], word[place + 1 :]
    substituted = head + rng.choice(kin[_kind(letter)]) + tail
    return rng.choice([substituted, head + tail, head + 2 * letter + tail, head + tail[:1] + letter + tail[1:]])
