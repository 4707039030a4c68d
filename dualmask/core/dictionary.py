"""The words of English, the most frequent first: the list that comes with symspellpy (SCOWL with counts of books)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path


@contextmanager
def dictionary_file() -> Iterator[Path]:
    """A word and its count a line. Raises ValueError where the package is missing."""
    try:
        package = resources.files("symspellpy")
    except ModuleNotFoundError:
        raise ValueError("a list of English words needs symspellpy: pip install 'dualmask[english]'") from None
    with resources.as_file(package / "frequency_dictionary_en_82_765.txt") as file:
        yield file


def dictionary() -> list[str]:
    """In small letters, names too. Raises ValueError where the package is missing."""
    with dictionary_file() as file:
        counts = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    return [word for word, count in sorted(counts, key=lambda pair: -int(pair[1]))]
