"""De-duplication: exact for paragraphs over the whole corpus, approximate for documents (MinHash LSH).

Both are shuffles through files. The task that reads a block leaves its keys beside it, sorted; a task for each range of
keys collects that range from all blocks and compares what shares a key. Ranges follow from the size of the corpus, so
that neither the result nor the memory of a task depends on the number of processes.
"""

# N documents, P paragraphs

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import arrays
from data_pipeline.files import replacing
from data_pipeline.hashing import UInt64
from data_pipeline.signatures import HASHES, KEYS, Sketches, similarity
from data_pipeline.steps import Result, Step
from dualmask.config.data import DedupConfig

FOLDERS = ("pairs", "dropped", "paragraphs")
SIZES_FILE, EXAMPLES_FILE = "sizes.npy", "examples.npy"  # of each kept document, its near-duplicates and one of them
REASONS = ("", "near-duplicate documents", "duplicate documents")  # by their code in ``dropped.npy``
_NEAR, _EXACT = 1, 2

_ENTRIES = 2**19  # keys of a range: what its task holds in memory
_COMPARED = 16  # documents of a bucket that the others are compared with: a corpus of one template stays linear
_LOOKED_UP = 2**18  # pairs whose sketches are in memory at a time
_RESOLVED = 2**15  # documents whose pairs are in memory at a time

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
        tasks = _ranges(end.document * KEYS)
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
    found = [np.empty((0, HASHES // 2 + 8), np.uint8)]
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
        whole = np.ascontiguousarray(table[:, HASHES // 2 :]).view("<u8")[:, 0]
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


def resolve(folder: Path, key: str, files: Sequence[Path], documents: int) -> Result:
    """Runs in one of Ray's processes: a document that is like an earlier one that is kept is dropped."""
    ranges = [arrays.mapped(file) for file in files]
    with (
        _new_table(folder / f"{key}.npy", documents, np.uint8) as dropped,
        _new_table(folder / SIZES_FILE, documents, np.uint32) as sizes,
        _new_table(folder / EXAMPLES_FILE, documents, np.int64) as examples,
    ):
        for first in range(0, documents, _RESOLVED):
            parts = [pairs[:, arrays.value_range(pairs[0], first, first + _RESOLVED)] for pairs in ranges]
            _add_to_groups(mark(np.concatenate(parts, axis=1), dropped), sizes, examples)
    return {}


@contextmanager
def _new_table(path: Path, documents: int, kind: type) -> Iterator[np.ndarray]:
    """[documents] zeros on disk, written atomically."""
    with replacing(path) as temporary:
        table = np.lib.format.open_memmap(temporary, "w+", kind, (max(documents, 1),))
        yield table
        table.flush()


def mark(pairs: Pairs, dropped: NDArray[np.uint8]) -> Pairs:
    """Writes the reasons into ``dropped`` for the documents of ``pairs``; earlier documents are decided already.

    Returns the pairs that decide.
    """
    order = np.lexsort((-pairs[2], pairs[0]))
    decisive = []
    for place, (document, earlier, reason) in zip(order.tolist(), pairs[:, order].T.tolist(), strict=True):
        if not dropped[document] and not dropped[earlier]:
            dropped[document] = reason
            decisive.append(place)
    return pairs[:, decisive]


def _add_to_groups(pairs: Pairs, sizes: NDArray[np.uint32], examples: NDArray[np.int64]) -> None:
    """Counts the near-duplicates among ``pairs`` for the documents that are kept of them."""
    near, kept = pairs[:2, pairs[2] == _NEAR]
    kept, first, count = np.unique(kept, return_index=True, return_counts=True)
    fresh = sizes[kept] == 0
    examples[kept[fresh]] = near[first[fresh]]
    sizes[kept] += count.astype(np.uint32)


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
