"""A rule: one way in which a text is made wrong at a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from dualmask.core.natural.word import Edit, Word, Words

Draws = Callable[[], float]  # the next uniform number in [0, 1)
Item = TypeVar("Item")


class Rule(NamedTuple):
    """weight: against the other rules of its kind. fits: whether the rule may apply to a word, whatever stands around
    it. write: the edit at such a word; None: what stands around it speaks against it."""

    weight: float
    fits: Callable[[Word], bool]
    write: Callable[[Words, int, Draws], Edit | None]


def pick(items: Sequence[Item], draws: Draws) -> Item:
    return items[int(draws() * len(items))]
