"""A spelling corrector without a model, to compare with: each unknown word becomes the nearest known one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualmask.core.dictionary import dictionary_file
from dualmask.core.words import words_of

MOST_EDITS = 2
SHORTEST = 3  # letters


def speller() -> Callable[[Sequence[str]], list[str]]:
    """symspellpy with the frequencies that come with it. Words with capitals stay: most of them are names. Raises
    ValueError where the package is missing."""
    try:
        from symspellpy import SymSpell, Verbosity
    except ModuleNotFoundError:
        raise ValueError("the spelling corrector needs symspellpy: pip install 'dualmask[english]'") from None

    known = SymSpell(max_dictionary_edit_distance=MOST_EDITS)
    with dictionary_file() as file:
        known.load_dictionary(file, term_index=0, count_index=1)

    def nearest(word: str) -> str:
        if not (word.isascii() and word.isalpha() and word.islower() and len(word) >= SHORTEST):
            return word
        return str(known.lookup(word, Verbosity.TOP, MOST_EDITS, include_unknown=True)[0].term)

    def correct(text: str) -> str:
        parts, at = [], 0
        for start, end, word in words_of(text):
            parts += [text[at:start], nearest(word)]
            at = end
        return "".join(parts) + text[at:]

    return lambda texts: [correct(text) for text in texts]
