"""De-duplication: exact for paragraphs over the whole corpus, approximate for documents (MinHash LSH)."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import UInt64, mix, text_hash

_SIGNATURE = 64
_ROWS_PER_BAND = 4  # 16 bands: a pair of similarity 0.8 is compared with probability 0.9998, of 0.3 with 0.12
_SHINGLE = 5  # words

# a multiplication by an odd number reorders well-mixed 64-bit hashes: one min-wise permutation each
_MULTIPLIERS = mix(np.arange(_SIGNATURE)) | np.uint64(1)


def paragraph_hashes(paragraphs: Sequence[str]) -> UInt64:
    """[P] hashes of the paragraphs' words in lower case: differences in spacing and capitals are ignored."""
    return np.array([text_hash(" ".join(text.lower().split())) for text in paragraphs], np.uint64)


def signature(text: str) -> UInt64:
    """[64] MinHash of the text's runs of five words (Broder 1997)."""
    words = np.array([zlib.crc32(word.encode()) for word in text.lower().split()], np.uint64)
    count = max(len(words) - _SHINGLE + 1, 1)
    words = np.pad(words, (0, max(_SHINGLE - len(words), 0)))
    shingles = np.unique(mix(*(words[shift : shift + count] for shift in range(_SHINGLE))))
    minima = np.full(_SIGNATURE, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(shingles), 4096):  # bounds the table's memory
        minima = np.minimum(minima, (shingles[start : start + 4096, None] * _MULTIPLIERS).min(0))
    return minima


def near_duplicates(signatures: UInt64, threshold: float) -> NDArray[np.bool_]:
    """[N] bool from signatures [N, 64]: estimated Jaccard similarity to an earlier, kept document ≥ ``threshold``."""
    marked = np.zeros(len(signatures), bool)
    bands = [mix(band, *signatures[:, band : band + _ROWS_PER_BAND].T) for band in range(0, _SIGNATURE, _ROWS_PER_BAND)]
    keys = np.stack(bands, axis=1).tolist() if len(signatures) else []
    kept: defaultdict[int, list[int]] = defaultdict(list)
    for index, buckets in enumerate(keys):
        candidates = sorted({other for bucket in buckets for other in kept.get(bucket, ())})
        similarity = (signatures[candidates] == signatures[index]).mean(axis=1)
        marked[index] = (similarity >= threshold).any()
        if not marked[index]:
            for bucket in buckets:
                kept[bucket].append(index)
    return marked


def first_seen(hashes: Sequence[UInt64]) -> list[NDArray[np.bool_]]:
    """For each document, [P] bool: no earlier paragraph of the corpus has the same hash."""
    if not hashes:
        return []
    flat = np.concatenate(hashes)
    _, first = np.unique(flat, return_index=True)
    new = np.zeros(len(flat), bool)
    new[first] = True
    return np.split(new, np.cumsum([len(part) for part in hashes])[:-1])
