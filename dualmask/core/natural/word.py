"""Words of a text as writers see them, and edits of these: the material of the errors in this folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_PARTS = re.compile(r"(\s*)([\"'(\[“‘]*)((?:[A-Za-z]+(?:['’][A-Za-z]+)*)?)([,.;:!?\"')\]”’]*)")


@dataclass(frozen=True)
class Word:
    """What stands between two blanks, with the blank in front: `` (dogs,`` has the blank, a head, a stem and a tail.

    Of what is no word of letters, with marks around it at most, the stem is empty and the tail is all.
    """

    lead: str
    head: str
    stem: str
    tail: str

    @classmethod
    def of(cls, text: str) -> Word:
        if match := _PARTS.fullmatch(text):
            return cls(*match.groups())
        bare = text.lstrip()
        return cls(text[: len(text) - len(bare)], "", "", bare)

    @cached_property
    def lower(self) -> str:
        return self.stem.lower().replace("’", "'")

    @property
    def text(self) -> str:
        return self.lead + self.head + self.stem + self.tail

    @property
    def opens(self) -> bool:
        """Nothing stands between it and the word in front but one blank."""
        return self.lead == " " and not self.head and bool(self.stem)

    @property
    def ends_sentence(self) -> bool:
        return self.tail.rstrip("\"')”’").endswith((".", "!", "?"))

    def having(self, stem: str, tail: str | None = None) -> str:
        """The text with another stem, which gets the capital of this one."""
        capital = self.stem[:1].isupper() and (len(self.stem) > 1 or self.stem != "I") and stem
        stem = stem[0].upper() + stem[1:] if capital else stem
        return self.lead + self.head + stem + (self.tail if tail is None else tail)


NO_WORD = Word("", "", "", "")
Words = Sequence[Word]


class Edit(NamedTuple):
    """The words [first, behind) become ``text``."""

    first: int
    behind: int
    text: str


def at(words: Words, place: int) -> Word:
    """The word there, or one without text."""
    return words[place] if 0 <= place < len(words) else NO_WORD


def before(words: Words, place: int) -> str:
    """The stem in front, lower case; "" across a mark."""
    word = at(words, place - 1)
    return "" if word.tail or words[place].head else word.lower


def after(words: Words, place: int) -> str:
    """The stem behind, lower case; "" across a mark."""
    word = at(words, place + 1)
    return "" if words[place].tail or word.head else word.lower


def begins_sentence(words: Words, place: int) -> bool:
    return place == 0 or "\n" in words[place].lead or words[place - 1].ends_sentence


def changed(words: Words, place: int, stem: str) -> Edit:
    return Edit(place, place + 1, words[place].having(stem))


def left_out(words: Words, place: int) -> Edit | None:
    """Without the word, of which the next one takes place and capital. None where marks stand between the two."""
    word, following = words[place], at(words, place + 1)
    if word.tail or not following.opens:
        return None
    stem = following.stem
    if word.stem[0].isupper() and begins_sentence(words, place):
        stem = stem[0].upper() + stem[1:]
    return Edit(place, place + 2, word.lead + word.head + stem + following.tail)


def put_before(words: Words, place: int, stem: str) -> Edit:
    """One more word in front."""
    word = words[place]
    return Edit(place, place + 1, f" {stem} {word.head}{word.stem}{word.tail}")


def put_behind(words: Words, place: int, stem: str) -> Edit | None:
    word = words[place]
    return None if word.tail else Edit(place, place + 1, f"{word.text} {stem}")
