"""Texts whose marks stand apart from the words, ``I like it .``, as in collections of learners' sentences.

The model has read texts in which they do not. It gets the text with its marks closed up, and what it writes is set
apart again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LEAST_MARKS = 2  # that stand apart, all of them, where nobody says that they do: one alone may be a slip

_MARK = re.compile(r" [,.;:!?](?= |$)", re.MULTILINE)
_ENDING = re.compile(r" (n't|'(?:s|m|re|ve|ll|d))(?= |$)", re.MULTILINE)  # do n't, it 's
_AGAINST = re.compile(r"\w[,.;:!?](?:\s|$)")
_CHUNK = re.compile(r"[^ \n]+")
_PARTS = re.compile(r"(.*?[^,.;:!?])([,.;:!?]*)")
_CONTRACTED = re.compile(r"(?i)(.*[a-z])(n't|'(?:s|m|re|ve|ll|d))")


@dataclass(frozen=True)
class ClosedUp:
    """A text with its marks closed up. ``known``: what stood between blanks in it as it was, and stays as it is."""

    text: str
    known: frozenset[str]
    contractions: bool = False  # those stand apart, too

    @classmethod
    def of(cls, text: str, sure: bool | None) -> ClosedUp | None:
        """sure: marks stand apart; None: where all of LEAST_MARKS or more do. None if they do not, or if the text
        would not come back byte by byte."""
        found = len(_MARK.findall(text))
        if sure is False or not found or (sure is None and (found < LEAST_MARKS or _AGAINST.search(text))):
            return None
        contractions = _ENDING.search(text) is not None
        closed = _MARK.sub(lambda mark: mark[0][1:], text)
        closed = _ENDING.sub(r"\1", closed) if contractions else closed
        made = cls(closed, frozenset(_CHUNK.findall(text)), contractions)
        return made if made.set_apart(closed) == text else None

    def set_apart(self, text: str) -> str:
        return _CHUNK.sub(lambda chunk: self._set_apart(chunk[0]), text)

    def _set_apart(self, chunk: str) -> str:
        match = None if chunk in self.known else _PARTS.fullmatch(chunk)
        if match is None:
            return chunk
        word, marks = match.groups()
        contracted = _CONTRACTED.fullmatch(word) if self.contractions and word not in self.known else None
        return " ".join([*(contracted.groups() if contracted else [word]), *marks])
