"""A table of misspellings of word pieces, with which ``ops.corruption`` changes characters but works on ids only."""

# V vocabulary, N variants, P pieces

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict

import torch
from torch import Tensor

from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer

SHORTEST = 3  # letters: misspellings of shorter words are often other words
ATTEMPTS = 3  # per variant: an attempt may give the word itself, a known misspelling or too many pieces

LettersByKind = dict[tuple[str, bool], list[str]]


def typo_table(tokenizer: Tokenizer, variants: int = 4, pieces: int = 4, seed: int = 0) -> Tensor:
    """[V, variants, pieces] int64: ids of misspellings of each piece, padded with -1; all -1 if there are none.

    Words of at least SHORTEST letters are misspelt by substituting, dropping or doubling one character, or by swapping
    two neighbours. The ids decode to the misspelt piece, leading space included. A piece with fewer different
    misspellings than ``variants`` repeats them, so that each variant may be drawn.
    """
    rng = random.Random(seed)
    words = _words(tokenizer)
    letters = _letters_by_kind(words)
    empty = [[-1] * pieces] * variants
    table = [empty] * tokenizer.vocab_size
    for index, word in words.items():
        misspellings = _misspellings(tokenizer, word, letters, rng, variants, pieces)
        table[index] = [misspellings[n % len(misspellings)] for n in range(variants)] if misspellings else empty
    return torch.tensor(table)


def _misspellings(
    tokenizer: Tokenizer, word: str, letters: LettersByKind, rng: random.Random, variants: int, pieces: int
) -> list[list[int]]:
    """Up to ``variants`` different misspellings of ``word``, each ``pieces`` ids padded with -1."""
    misspellings: dict[str, list[int]] = {}
    for _ in range(ATTEMPTS * variants):
        wrong = _misspell(word, letters, rng)
        if len(misspellings) < variants and wrong != word and wrong not in misspellings:
            ids = tokenizer.encode(wrong)
            if len(ids) <= pieces:
                misspellings[wrong] = ids + [-1] * (pieces - len(ids))
    return list(misspellings.values())


def _words(tokenizer: Tokenizer) -> dict[int, str]:
    """The pieces that are long enough words or parts of words, with their leading space if they have one."""
    texts = {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size) if index not in SPECIAL_IDS}
    letters = {index: text.removeprefix(" ") for index, text in texts.items()}
    return {index: texts[index] for index, word in letters.items() if len(word) >= SHORTEST and word.isalpha()}


def _kind(letter: str) -> tuple[str, bool]:
    """Script ("LATIN", "CYRILLIC", …) and case."""
    return unicodedata.name(letter, "?").split()[0], letter.isupper()


def _letters_by_kind(words: dict[int, str]) -> LettersByKind:
    """The letters of each kind, each as often as it occurs in the words."""
    letters: LettersByKind = defaultdict(list)
    for letter in "".join(words.values()):
        letters[_kind(letter)].append(letter)
    return letters


def _misspell(word: str, letters: LettersByKind, rng: random.Random) -> str:
    """``word`` with one random mistake in its letters; the result may equal the word."""
    position = rng.randrange(word.startswith(" "), len(word))
    head, letter, tail = word[:position], word[position], word[position + 1 :]
    substituted = head + rng.choice(letters[_kind(letter)]) + tail
    return rng.choice([substituted, head + tail, head + 2 * letter + tail, head + tail[:1] + letter + tail[1:]])
