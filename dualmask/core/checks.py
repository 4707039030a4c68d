"""How values that a person gave are refused: one line with the option, its value and the remedy."""

from __future__ import annotations


def check(right: bool, name: str, value: object, allowed: str) -> None:
    """Raises ValueError unless ``right``. NaN compares false, so it is refused everywhere."""
    if not right:
        raise ValueError(f"{name} {value} is not possible: give {allowed}")
