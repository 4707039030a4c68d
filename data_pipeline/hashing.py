"""Stable 64-bit hashes: the only source of randomness in the data pipeline.

Python's ``hash`` differs between processes and numpy's generators may differ between versions; these hashes do not.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInt64 = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _scramble(x: UInt64) -> UInt64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix(*parts: ArrayLike) -> UInt64:
    """One 64-bit hash for each element of the broadcast integer ``parts`` (at least one dimension comes back)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = _scramble((state ^ np.asarray(part).astype(np.uint64)) + _GOLDEN)
    return state


def permutation(size: int, *parts: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)``, a pure function of its arguments."""
    return np.argsort(mix(*parts, np.arange(size)), kind="stable")


def unit(hashes: UInt64) -> NDArray[np.float64]:
    """Hashes as numbers in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b of the UTF-8 bytes."""
    return bytes_hash(text.encode())


def bytes_hash(content: bytes) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
