"""Arrays on disk: written atomically, mapped into memory where only a part is needed, split by ranges of their keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipeline.files import replacing
from data_pipeline.hashing import UInt64


def save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def mapped(path: Path) -> np.ndarray:
    """The array in ``path``; only the parts that are used come into memory. numpy cannot map an empty one."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def key_range(keys: UInt64, part: int, parts: int) -> slice:
    """Where in the sorted ``keys`` range ``part`` of ``parts`` equal ranges of all 64-bit numbers stands."""
    borders = [-(-(number << 64) // parts) for number in (part, part + 1)]
    start = int(np.searchsorted(keys, np.uint64(borders[0])))
    stop = int(np.searchsorted(keys, np.uint64(borders[1]))) if part + 1 < parts else len(keys)
    return slice(start, stop)


def value_range(values: np.ndarray, first: int, stop: int) -> slice:
    """Where in the sorted integers ``values`` those of ``first`` … ``stop`` - 1 stand."""
    return slice(*np.searchsorted(values, np.array([first, stop], values.dtype)).tolist())
