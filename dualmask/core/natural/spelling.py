"""Misspelt words: by the keys of a keyboard, and by the sound."""

from __future__ import annotations

from collections.abc import Callable

from dualmask.core.natural.forms import is_word
from dualmask.core.natural.rule import Draws, pick
from dualmask.core.natural.word import Edit, Word, Words, changed

SHORTEST = 4  # letters
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
ATTEMPTS = 4  # misspellings that are words themselves are drawn again

# what is written for what, where people write by the ear
SOUNDS = [
    ("ie", "ei"), ("ei", "ie"), ("ence", "ance"), ("ance", "ence"), ("ent", "ant"), ("ant", "ent"),
    ("able", "ible"), ("ible", "able"), ("tion", "sion"), ("sion", "tion"), ("cial", "tial"),
    ("tial", "cial"), ("ph", "f"), ("ght", "gth"), ("ght", "th"), ("gh", ""), ("kn", "n"), ("wr", "r"),
    ("wh", "w"), ("ck", "k"), ("sc", "s"), ("qu", "q"), ("ous", "us"), ("ious", "ous"),
    ("eous", "ious"), ("ea", "ee"), ("ee", "ea"), ("ea", "e"), ("ai", "ia"), ("ai", "a"), ("au", "a"),
    ("au", "o"), ("ou", "o"), ("oo", "o"), ("ui", "i"), ("igh", "i"), ("ely", "ly"), ("ally", "aly"),
    ("lly", "ly"), ("ful", "full"), ("ment", "mant"), ("ary", "ery"), ("ery", "ary"), ("ory", "ary"),
    ("er", "ar"), ("ar", "er"), ("or", "er"), ("er", "or"), ("re", "er"), ("le", "el"), ("el", "le"),
    ("ce", "se"), ("se", "ce"), ("ci", "si"), ("ti", "ci"), ("x", "ks"), ("ex", "exc"), ("exc", "ex"),
    ("dge", "ge"), ("y", "i"), ("i", "y"), ("e", "i"), ("i", "e"), ("a", "e"), ("e", "a"), ("o", "a"),
    ("u", "o"), ("c", "k"), ("c", "s"), ("z", "s"), ("s", "z"),
]  # fmt: skip
DOUBLED = set("bcdfglmnprst")


def _neighbours() -> dict[str, str]:
    """The letters beside each key, in its row and the rows above and below."""
    places = {letter: (row, column) for row, letters in enumerate(ROWS) for column, letter in enumerate(letters)}
    return {
        letter: "".join(
            other
            for other, (near_row, near) in places.items()
            if other != letter and abs(row - near_row) <= 1 and abs(column - near) <= 1
        )
        for letter, (row, column) in places.items()
    }


NEIGHBOURS = _neighbours()


def may_be_misspelt(word: Word) -> bool:
    """No name: nobody can tell how it is written."""
    return len(word.stem) >= SHORTEST and word.stem.isalpha() and word.stem.islower()


def by_keys(words: Words, place: int, draws: Draws) -> Edit | None:
    """A letter dropped, doubled, changed with the next, or another key hit, beside the right one or too. The first
    letter stays: those who write look at it."""
    return _misspelt(words, place, draws, _slip)


def by_sound(words: Words, place: int, draws: Draws) -> Edit | None:
    """A double letter single, a single one double, or what sounds alike."""
    return _misspelt(words, place, draws, _heard)


def _misspelt(words: Words, place: int, draws: Draws, misspell: Callable[[str, Draws], str]) -> Edit | None:
    word = words[place].lower
    for _ in range(ATTEMPTS):
        wrong = misspell(word, draws)
        if wrong and wrong != word and not is_word(wrong):
            return changed(words, place, wrong)
    return None


def _slip(word: str, draws: Draws) -> str:
    at = 1 + int(draws() * (len(word) - 1))
    front, letter, behind = word[:at], word[at], word[at + 1 :]
    kind, near = draws(), pick(NEIGHBOURS[letter], draws)
    if kind < 0.3:
        return front + behind
    if kind < 0.5:
        return front + behind[:1] + letter + behind[1:]
    if kind < 0.6:
        return front + letter + letter + behind
    return front + near + behind if kind < 0.9 else front + letter + near + behind


def _heard(word: str, draws: Draws) -> str:
    ways = [(right, wrong, start) for right, wrong in SOUNDS if (start := word.find(right, 1)) > 0]
    double = [at for at in range(1, len(word)) if word[at] == word[at - 1]]
    single = [
        at for at in range(1, len(word) - 1) if word[at] in DOUBLED and word[at] not in (word[at - 1], word[at + 1])
    ]
    kind = draws()
    if double and kind < 0.4:
        at = pick(double, draws)
        return word[:at] + word[at + 1 :]
    if single and kind < 0.55:
        at = pick(single, draws)
        return word[:at] + word[at] + word[at:]
    if word.endswith("e") and kind < 0.62:
        return word[:-1]
    if not ways:
        return ""
    right, wrong, start = pick(ways, draws)
    return word[:start] + wrong + word[start + len(right) :]
