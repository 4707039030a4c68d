"""What a plain sentence is made of, the words of a text, and lists of known words: an edit that writes a word nobody
writes is not a correction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dualmask.core.manifest import write_file

FILE = "words.txt"  # its usual name in a folder

MARKS = ",.;:!?'\"-"
BLANKS = " \t\n\r\f\v"

_PLAIN = re.compile(rf" ?(?:[A-Za-z]+(?:'[A-Za-z]+)*|[{re.escape(MARKS)}]+)")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE = "'s"


def is_plain(text: str) -> bool:
    """Whether ``text`` is ASCII letters or MARKS, with at most one space in front."""
    return _PLAIN.fullmatch(text) is not None


def words_of(text: str) -> list[tuple[int, int, str]]:
    """(start, end, word) of each word, in characters: letters of any script, with apostrophes between them."""
    return [(match.start(), match.end(), match[0]) for match in _WORD.finditer(text)]


class WordList:
    """Words that are known, the most frequent first. Either apostrophe is the same to it."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(map(_plain, words)))
        self._known = frozenset(self.words)

    def __len__(self) -> int:
        return len(self.words)

    def known(self, word: str) -> bool:
        """Whether ``word`` is listed as it is, or in small letters if only its first letter is a capital. A possessive
        's is ignored."""
        word = _plain(word)
        return self._listed(word) or (word.endswith(_POSSESSIVE) and self._listed(word.removesuffix(_POSSESSIVE)))

    def _listed(self, word: str) -> bool:
        if word in self._known:
            return True
        return word[:1].isupper() and word[1:] == word[1:].lower() and word.lower() in self._known

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 1) -> WordList:
        """The words that occur at least ``least`` times; those equally frequent in alphabetical order. The first and
        the last word of each text are not counted: a text may begin or end in the middle of a word."""
        count = Counter(_plain(word) for text in texts for _, _, word in words_of(text)[1:-1])
        frequent = [word for word, times in count.items() if times >= least]
        return cls(sorted(frequent, key=lambda word: (-count[word], word)))

    def joined(self, dictionary: Sequence[str]) -> WordList:
        """With the words of a dictionary in small letters, the most frequent first; each by the better of its ranks.
        Those that stand here with a capital only are names, and stay so."""
        rank = {word: number for number, word in enumerate(self.words)}
        for number, word in enumerate(map(_plain, dictionary)):
            written = word.capitalize() if word not in self._known and word.capitalize() in self._known else word
            rank[written] = min(rank.get(written, number), number)
        return WordList(sorted(rank, key=lambda word: (rank[word], word)))

    @classmethod
    def load(cls, path: Path) -> WordList:
        """Raises FileNotFoundError; ValueError naming the line that is not a word."""
        if not path.is_file():
            raise FileNotFoundError(f"no list of words at {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if not _WORD.fullmatch(line):
                raise ValueError(f"{path} line {number}: {line!r} is not a word; give one word a line, letters only")
        return cls(lines)

    @property
    def text(self) -> str:
        """The file: one word a line."""
        return "".join(f"{word}\n" for word in self.words)

    def save(self, path: Path) -> None:
        """UTF-8, written whole."""
        write_file(path, self.text)


def _plain(word: str) -> str:
    return word.replace("’", "'")
