"""De-duplication: exact for paragraphs over the whole corpus, approximate for documents (MinHash LSH).

Both are shuffles through files. The task that reads a block leaves its keys beside it, sorted; a task for each range of
keys collects that range from all blocks and compares what shares a key. Ranges follow from the size of the corpus, so
that neither the result nor the memory of a task depends on the number of processes.
"""

# N documents, P paragraphs, H hashes of a signature, B keys of a document

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import arrays
from data_pipeline.files import replacing
from data_pipeline.hashing import UInt64, bytes_hash, mix
from data_pipeline.steps import Result, Step
from dualmask.config.data import DedupConfig

FOLDERS = ("pairs", "dropped", "paragraphs")
REASONS = ("", "near-duplicate documents", "duplicate documents")  # by their code in ``dropped.npy``
_NEAR, _EXACT = 1, 2

_HASHES = 512  # of a signature: similarity is known to 0.02
_BANDS, _ROWS_PER_BAND = 16, 5  # a pair of similarity 0.8 is compared with probability 0.998, of 0.3 with 0.04
_KEYS = _BANDS + 1  # of a document: its bands, and its whole text
_SHINGLE = 5  # words
_WORDS = 2**17  # whose hashes are in memory at a time

_ENTRIES = 2**19  # keys of a range: what its task holds in memory
_COMPARED = 16  # documents of a bucket that the others are compared with: a corpus of one template stays linear
_LOOKED_UP = 2**18  # pairs whose sketches are in memory at a time
_PAIRS = 2**14  # compared at a time
_RESOLVED = 2**15  # documents whose pairs are in memory at a time

# a multiplication by an odd number reorders well-mixed 32-bit hashes: one min-wise permutation each
_MULTIPLIERS = (mix(np.arange(_HASHES)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)

_LOWER = bytes(ord(" " if chr(byte).isspace() else chr(byte).lower()) for byte in range(128)) + bytes(range(128, 256))

_EQUAL_HALVES = np.array([(difference < 16) + (difference % 16 == 0) for difference in range(256)], np.uint8)

UInt32 = NDArray[np.uint32]
Sketches = NDArray[np.uint8]  # [N, H / 2 + 8] the last four bits of each hash of a signature; a hash of the whole text
Lookup = Callable[[NDArray[np.int64]], Sketches]  # of documents in ascending order
Flags = NDArray[np.bool_]
Pairs = NDArray[np.int64]  # [3, N] a document, an earlier one like it, the reason to drop the first


@dataclass(frozen=True)
class Place:
    """Where a block begins in the corpus. Behind the last one stands a place without name: the end."""

    name: str
    document: int
    paragraph: int


@dataclass(frozen=True)
class Found:
    """The files that say what is dropped; None where nothing was looked for."""

    dropped: Path | None
    repeated: tuple[Path, ...]

    def documents(self, place: Place, count: int) -> NDArray[np.uint8]:
        """[N] index in REASONS of each document of a block; 0: it is kept."""
        if self.dropped is None:
            return np.zeros(count, np.uint8)
        return np.array(arrays.mapped(self.dropped)[place.document : place.document + count])

    def new_paragraphs(self, place: Place, count: int) -> Flags:
        """[P] whether each paragraph of a block is the first of its kind in the corpus."""
        new = np.ones(count, bool)
        for file in self.repeated:
            repeated = arrays.mapped(file)
            part = repeated[arrays.value_range(repeated, place.paragraph, place.paragraph + count)]
            new[part - place.paragraph] = False
        return new


def find(work: Path, made_from: str, read: Path, places: Sequence[Place], config: DedupConfig) -> Found:
    """Compares the documents whose keys lie in ``read``, then the paragraphs of those that are kept."""
    end = places[-1]
    dropped: Path | None = None
    shared = {"read": read, "places": places}
    if config.near_duplicate is not None:
        pairs = Step(work / "pairs", made_from)
        tasks = _ranges(end.document * _KEYS)
        pairs.run(pair_range, tasks, threshold=config.near_duplicate, **shared)
        step = Step(work / "dropped", made_from)
        files = [pairs.folder / f"{key}.npy" for key in tasks]
        step.run(resolve, {"dropped": {"files": files, "documents": end.document}})
        dropped = step.folder / "dropped.npy"
    repeated: tuple[Path, ...] = ()
    if config.paragraphs:
        step = Step(work / "paragraphs", made_from)
        tasks = _ranges(end.paragraph)
        step.run(repeat_range, tasks, dropped=dropped, **shared)
        repeated = tuple(step.folder / f"{key}.npy" for key in tasks)
    return Found(dropped, repeated)


def _ranges(entries: int) -> dict[str, dict[str, int]]:
    parts = max(1, -(-entries // _ENTRIES))
    return {f"{part:06d}": {"part": part, "parts": parts} for part in range(parts)}


# --- keys of a block --------------------------------------------------------------------------------------------------


def write_keys(folder: Path, name: str, documents: Sequence[Sequence[str]]) -> None:
    """Leaves the sketches of a block's documents, given as paragraphs, and two sorted lists of keys beside it."""
    hashes, bands, sketches = keys_of(documents)
    arrays.save(folder / f"{name}.sketches.npy", sketches)
    arrays.save(folder / f"{name}.bands.npy", _sorted(bands.ravel(), np.repeat(np.arange(len(bands)), _KEYS)))
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
    signatures = np.empty((len(documents), _HASHES), np.uint32)
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


# --- ranges of keys ---------------------------------------------------------------------------------------------------


def _gathered(read: Path, places: Sequence[Place], kind: str, part: int, parts: int) -> Iterator[tuple[Place, UInt64]]:
    """The entries of a range of keys, block by block."""
    for place in places[:-1]:
        entries = arrays.mapped(read / f"{place.name}.{kind}.npy")
        yield place, np.array(entries[:, arrays.key_range(entries[0], part, parts)])


def pair_range(
    folder: Path, key: str, part: int, parts: int, read: Path, places: Sequence[Place], threshold: float
) -> Result:
    """Runs in Ray's processes: the pairs of similar documents among those that share a key of one range."""
    keys, documents = [], []
    for place, entries in _gathered(read, places, "bands", part, parts):
        keys.append(entries[0])
        documents.append(entries[1].astype(np.int64) + place.document)
    pairs = similar_pairs(
        _concatenated(keys, np.uint64),
        _concatenated(documents, np.int64),
        lambda wanted: _sketches(read, places, wanted),
        threshold,
    )
    arrays.save(folder / f"{key}.npy", pairs)
    return {"pairs": pairs.shape[1]}


def _concatenated(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts])


def _sketches(read: Path, places: Sequence[Place], documents: NDArray[np.int64]) -> Sketches:
    """Of ``documents``, which are sorted."""
    found = [np.empty((0, _HASHES // 2 + 8), np.uint8)]
    for place, after in pairwise(places):
        part = documents[arrays.value_range(documents, place.document, after.document)]
        if len(part):
            found.append(arrays.mapped(read / f"{place.name}.sketches.npy")[part - place.document])
    return np.concatenate(found)


def similar_pairs(keys: UInt64, documents: NDArray[np.int64], sketches: Lookup, threshold: float) -> Pairs:
    """Sorted pairs of documents that share one of the ``keys`` [N] and are similar by their ``sketches``.

    The earliest document of a bucket is compared with all others of it; those that are like it are settled, and so on
    with the earliest of the rest, at most ``_COMPARED`` times.
    """
    order = np.lexsort((documents, keys))
    keys, documents = keys[order], documents[order]
    shared = _in_groups(keys)
    keys, documents = keys[shared], documents[shared]
    found = [np.empty((3, 0), np.int64)]
    for _ in range(_COMPARED):
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
        heads = np.repeat(documents[first], np.diff(np.append(first, len(keys))))
        is_other = np.ones(len(keys), bool)
        is_other[first] = False
        keys, documents, heads = keys[is_other], documents[is_other], heads[is_other]
        reasons = _compared(documents, heads, sketches, threshold)
        found.append(np.stack([documents, heads, reasons])[:, reasons > 0])
        keys, documents = keys[reasons == 0], documents[reasons == 0]
        rest = _in_groups(keys)
        keys, documents = keys[rest], documents[rest]
    return np.unique(np.concatenate(found, axis=1), axis=1)


def _compared(
    documents: NDArray[np.int64], heads: NDArray[np.int64], sketches: Lookup, threshold: float
) -> NDArray[np.int64]:
    """[N] the reason to drop each of the ``documents``, which is compared with one of ``heads``; 0: there is none."""
    reasons = [np.empty(0, np.int64)]
    for at in range(0, len(documents), _LOOKED_UP):
        pairs = np.stack([documents[at : at + _LOOKED_UP], heads[at : at + _LOOKED_UP]])
        distinct = np.unique(pairs)
        table = sketches(distinct)
        left, right = np.searchsorted(distinct, pairs)
        whole = np.ascontiguousarray(table[:, _HASHES // 2 :]).view("<u8")[:, 0]
        similar = similarity(table, left, right) >= threshold
        reasons.append(np.where(similar, np.where(whole[left] == whole[right], _EXACT, _NEAR), 0))
    return np.concatenate(reasons)


def _in_groups(keys: UInt64) -> Flags:
    """[N] whether another of the sorted ``keys`` is the same."""
    same = keys[1:] == keys[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    return shared


def similarity(table: Sketches, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of rows ``left`` and ``right`` of ``table``.

    Different hashes have the same last four bits once in 16 times (b-bit MinHash, Li and König 2010).
    """
    bits = table[:, : _HASHES // 2]
    agreement = [
        _EQUAL_HALVES[bits[left[at : at + _PAIRS]] ^ bits[right[at : at + _PAIRS]]].sum(axis=1, dtype=np.int64)
        for at in range(0, len(left), _PAIRS)
    ]
    return (np.concatenate([np.empty(0, np.int64), *agreement]) / _HASHES * 16 - 1) / 15


def resolve(folder: Path, key: str, files: Sequence[Path], documents: int) -> Result:
    """Runs in one of Ray's processes: a document that is like an earlier one that is kept is dropped."""
    ranges = [arrays.mapped(file) for file in files]
    with replacing(folder / f"{key}.npy") as temporary:
        dropped = np.lib.format.open_memmap(temporary, "w+", np.uint8, (max(documents, 1),))
        for first in range(0, documents, _RESOLVED):
            parts = [pairs[:, arrays.value_range(pairs[0], first, first + _RESOLVED)] for pairs in ranges]
            mark(np.concatenate(parts, axis=1), dropped)
        dropped.flush()
    return {}


def mark(pairs: Pairs, dropped: NDArray[np.uint8]) -> None:
    """Writes the reasons into ``dropped`` for the documents of ``pairs``; earlier documents are decided already."""
    order = np.lexsort((-pairs[2], pairs[0]))
    for document, earlier, reason in pairs[:, order].T.tolist():
        if not dropped[document] and not dropped[earlier]:
            dropped[document] = reason


def repeat_range(
    folder: Path, key: str, part: int, parts: int, read: Path, places: Sequence[Place], dropped: Path | None
) -> Result:
    """Runs in Ray's processes: the paragraphs of kept documents that are not the first of their kind, by number."""
    flags = None if dropped is None else arrays.mapped(dropped)
    keys, numbers = [], []
    for place, entries in _gathered(read, places, "paragraphs", part, parts):
        if flags is not None:
            entries = entries[:, flags[entries[2].astype(np.int64) + place.document] == 0]
        keys.append(entries[0])
        numbers.append(entries[1].astype(np.int64) + place.paragraph)
    repeated = seen_before(_concatenated(keys, np.uint64), _concatenated(numbers, np.int64))
    arrays.save(folder / f"{key}.npy", repeated)
    return {"repeated": len(repeated)}


def seen_before(keys: UInt64, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sorted ``numbers`` of those whose key a smaller number has, too."""
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order]
    return np.sort(numbers[1:][keys[1:] == keys[:-1]])
