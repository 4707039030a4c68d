"""Signatures of documents, by which near-duplicates are found: MinHash values, the keys that similar documents share,
and sketches that tell how similar two are."""

# N documents, P paragraphs, H hashes of a signature, B keys of a document

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import arrays
from data_pipeline.hashing import UInt64, bytes_hash, mix

HASHES = 512  # of a signature: similarity is known to 0.02
_BANDS, _ROWS_PER_BAND = 16, 5  # a pair of similarity 0.8 is compared with probability 0.998, of 0.3 with 0.04
KEYS = _BANDS + 1  # of a document: its bands, and its whole text
_SHINGLE = 5  # words
_WORDS = 2**17  # whose hashes are in memory at a time
_PAIRS = 2**14  # compared at a time

# a multiplication by an odd number reorders well-mixed 32-bit hashes: one min-wise permutation each
_MULTIPLIERS = (mix(np.arange(HASHES)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)

_LOWER = bytes(ord(" " if chr(byte).isspace() else chr(byte).lower()) for byte in range(128)) + bytes(range(128, 256))

_EQUAL_HALVES = np.array([(difference < 16) + (difference % 16 == 0) for difference in range(256)], np.uint8)

UInt32 = NDArray[np.uint32]
Sketches = NDArray[np.uint8]  # [N, H / 2 + 8] the last four bits of each hash of a signature; a hash of the whole text


def write_keys(folder: Path, name: str, documents: Sequence[Sequence[str]]) -> None:
    """Leaves the sketches of a block's documents, given as paragraphs, and two sorted lists of keys beside it."""
    hashes, bands, sketches = keys_of(documents)
    arrays.save(folder / f"{name}.sketches.npy", sketches)
    arrays.save(folder / f"{name}.bands.npy", _sorted(bands.ravel(), np.repeat(np.arange(len(bands)), KEYS)))
    owners = np.repeat(np.arange(len(hashes)), list(map(len, hashes)))
    arrays.save(folder / f"{name}.paragraphs.npy", _sorted(np.concatenate(hashes), np.arange(len(owners)), owners))


def _sorted(keys: UInt64, *columns: np.ndarray) -> UInt64:
    """[1 + columns, N] in the order of the keys."""
    order = np.argsort(keys, kind="stable")
    return np.stack([column[order].astype(np.uint64) for column in (keys, *columns)])


def keys_of(documents: Sequence[Sequence[str]]) -> tuple[list[UInt64], UInt64, Sketches]:
    """Hashes of each document's paragraphs, keys [N, B] of the documents, and their sketches."""
    hashes: list[UInt64] = []
    signatures: list[UInt32] = []
    words: list[UInt64] = []
    waiting = 0
    for paragraphs in documents:
        of_paragraphs, of_words = _hashes(paragraphs)
        hashes.append(of_paragraphs)
        words.append(of_words)
        waiting += len(of_words)
        if waiting > _WORDS:
            signatures.append(signatures_of(words))
            words, waiting = [], 0
    table = np.concatenate([*signatures, signatures_of(words)])
    whole = np.array([bytes_hash(part.tobytes()) for part in hashes], "<u8")
    bits = (table[:, ::2] & np.uint32(15)) << np.uint32(4) | table[:, 1::2] & np.uint32(15)
    sketches = np.concatenate([bits.astype(np.uint8), whole[:, None].view(np.uint8)], axis=1)
    return hashes, np.column_stack([*band_keys(table), whole]), sketches


def _hashes(paragraphs: Sequence[str]) -> tuple[UInt64, UInt64]:
    """Hashes of paragraphs [P], and of their words. Spacing and capitals make no difference."""
    of_paragraphs: list[int] = []
    words: list[bytes] = []
    for text in paragraphs:
        part = _lower_words(text)
        of_paragraphs.append(bytes_hash(b" ".join(part)))
        words += part
    return np.array(of_paragraphs, np.uint64), np.fromiter(map(zlib.crc32, words), np.uint64, len(words))


def _lower_words(text: str) -> list[bytes]:
    if text.isascii():
        return text.encode().translate(_LOWER).split()
    return " ".join(text.lower().split()).encode().split(b" ")


def signatures_of(documents: Sequence[UInt64]) -> UInt32:
    """[N, H] MinHash (Broder 1997) of the runs of five words of each document, given as hashes of its words."""
    signatures = np.empty((len(documents), HASHES), np.uint32)
    if not documents:
        return signatures
    documents = [words if len(words) >= _SHINGLE else np.resize(words, _SHINGLE) for words in documents]
    words, lengths = np.concatenate(documents), np.array(list(map(len, documents)))
    count = len(words) - _SHINGLE + 1
    runs = mix(*(words[shift : shift + count] for shift in range(_SHINGLE)))
    owners = np.repeat(np.arange(len(lengths)), lengths)
    inside = owners[:count] == owners[_SHINGLE - 1 :]  # not of two documents
    shingles = (runs[inside] >> np.uint64(32)).astype(np.uint32)
    starts = np.cumsum([0, *(lengths - _SHINGLE + 1)])[:-1]
    for number, multiplier in enumerate(_MULTIPLIERS):
        signatures[:, number] = np.minimum.reduceat(shingles * multiplier, starts)
    return signatures


def band_keys(signatures: UInt32) -> list[UInt64]:
    """One key [N] for each band of signatures [N, H]: documents that share one are compared."""
    bands = signatures[:, : _BANDS * _ROWS_PER_BAND].reshape(len(signatures), _BANDS, _ROWS_PER_BAND)
    return [mix(band, *bands[:, band].T) for band in range(_BANDS)]


def similarity(table: Sketches, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of rows ``left`` and ``right`` of ``table``.

    Different hashes have the same last four bits once in 16 times (b-bit MinHash, Li and König 2010).
    """
    bits = table[:, : HASHES // 2]
    agreement = [
        _EQUAL_HALVES[bits[left[at : at + _PAIRS]] ^ bits[right[at : at + _PAIRS]]].sum(axis=1, dtype=np.int64)
        for at in range(0, len(left), _PAIRS)
    ]
    return (np.concatenate([np.empty(0, np.int64), *agreement]) / HASHES * 16 - 1) / 15
