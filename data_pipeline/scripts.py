"""Which scripts a text is written in: its letters, counted by the first word of their Unicode name (LATIN, CYRILLIC,
CJK, ARABIC, …)."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter

import numpy as np

OTHER = "OTHER"

_NO_ASCII_LETTERS = bytes(code for code in range(256) if not (code < 128 and chr(code).isalpha()))


def count_letters(text: str) -> Counter[str]:
    """Letters of each script."""
    found = Counter({"LATIN": len(text.encode().translate(None, _NO_ASCII_LETTERS))})
    if not text.isascii():
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        codes, counts = np.unique(codes[codes > 127], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            if script := _script(code):
                found[script] += count
    return +found


@functools.lru_cache(maxsize=2**16)
def _script(code: int) -> str:
    """Empty if the character is no letter."""
    if not chr(code).isalpha():
        return ""
    plain = unicodedata.normalize("NFKC", chr(code))  # of FULLWIDTH, MATHEMATICAL, SUPERSCRIPT … the letter itself
    letter = next(filter(str.isalpha, plain), chr(code))
    word = unicodedata.name(letter, OTHER).partition(" ")[0].partition("-")[0]
    return OTHER if word == "MODIFIER" else word
