"""Stage 3: from documents to streams of ids, and the table of rows that are cut from each.

A training row is any ``max_length - 2`` consecutive ids of the shuffled documents or, with ``packing: documents``, as
many whole ones as fit, each with a BOS and an EOS of its own. A dev or test row never holds parts of two documents: the
first row of a document starts where the document does.

Documents are shuffled by a hash of their number. A split of more tokens than a task should hold is cut into buckets,
each a range of hashes: a bucket is a stream of its own, whose rows are shuffled and become its shards.
"""

# N documents, R rows, P parts of documents

from __future__ import annotations

import bisect
import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import arrays, documents
from data_pipeline.files import write_atomically
from data_pipeline.hashing import UInt64, mix, permutation, text_hash
from data_pipeline.manifest import SPLITS
from data_pipeline.shards import Tokens, token_dtype
from data_pipeline.steps import Result, Step, discard
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

Rows = NDArray[np.int64]  # [R, 2] start in the stream and number of ids

FOLDER = "rows"
SHORTEST_ROW = 8  # ids of a dev or test row, BOS and EOS excluded
BUCKET_TOKENS = 2**24  # what a task holds in memory: a smaller split is shuffled as a whole
_TOKENS = "tokens"
_INDEX = "index.json"


@dataclass(frozen=True)
class Packed:
    """The files of one bucket: ``stream`` holds ids, ``rows`` the [R, 2] table, in the shuffled order of the shards."""

    stream: Path
    rows: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Packed:
        return cls(*(folder / f"{name}.{kind}.npy" for kind in ("stream", "rows")))


@dataclass(frozen=True)
class Bucket:
    """A range of a split's documents by hash: what it holds, and in how many rows."""

    split: str
    name: str
    documents: int
    tokens: int  # in rows, BOS and EOS excluded
    left_over: int  # at ends that are too short for a row
    rows: int


@dataclass(frozen=True)
class HashRange:
    """Range ``number`` of ``of`` equal ranges of a split's documents by hash."""

    split: str
    number: int
    of: int

    @property
    def bucket(self) -> str:
        return f"{self.split}-{self.number:05d}"


@dataclass(frozen=True)
class Recipe:
    """How the documents of a build become rows."""

    tokenizer_file: Path
    tokenizer_digest: str
    seed: int
    size: int  # ids of a row at most
    packing: str

    @property
    def tokenizer(self) -> Tokenizer:
        return _tokenizer(self.tokenizer_file, self.tokenizer_digest)

    def cuts_stream(self, split: str) -> bool:
        """Whether rows are any consecutive ids of all documents."""
        return split == "train" and self.packing == "stream"


def outputs(work: Path) -> list[Path]:
    """The files of a finished stage."""
    try:
        packed = [Packed.of(work / FOLDER, bucket.name) for bucket in buckets(work)]
    except (OSError, ValueError, KeyError):
        packed = []
    return [work / FOLDER / _INDEX, *(file for part in packed for file in (part.stream, part.rows))]


def buckets(work: Path) -> list[Bucket]:
    """The buckets of a finished stage, in order."""
    return [Bucket(**bucket) for bucket in json.loads((work / FOLDER / _INDEX).read_bytes())["buckets"]]


def counts(work: Path) -> dict[str, int]:
    """Tokens of a finished stage: those of documents, those in rows, those left over at ends."""
    found: dict[str, int] = json.loads((work / FOLDER / _INDEX).read_bytes())["counts"]
    return found


def tidy(work: Path) -> None:
    """Removes what only the unfinished stage needs."""
    discard(work / _TOKENS)


def pack(work: Path, tokenizer_file: Path, config: DataBuildConfig, made_from: str) -> None:
    """Tokenises ``work/documents/`` with a running Ray and writes the ``Packed`` files of all buckets."""
    tokenizer = Tokenizer(tokenizer_file)
    tokens = Step(work / _TOKENS, made_from)
    blocks = documents.selected(work)
    recipe = Recipe(tokenizer_file, tokenizer.digest, config.seed, config.max_length - 2, config.packing)
    sizes: Counter[str] = Counter()
    for result in tokens.run(encode_block, _numbered(blocks), work=work, recipe=recipe):
        sizes.update(result)
    rows = Step(work / FOLDER, made_from)
    names = [block.name for block in blocks]
    tasks = {share.bucket: {"share": share} for share in _cut(sizes)}
    packed = rows.run(pack_bucket, tasks, read=tokens.folder, blocks=names, recipe=recipe)
    found = [Bucket(**result) for result in packed]
    total = {
        "documents": sum(bucket.documents for bucket in found),
        "tokens of documents": sum(sizes.values()),
        "tokens in rows": sum(bucket.tokens for bucket in found),
        "tokens left over": sum(bucket.left_over for bucket in found),
        "rows": sum(bucket.rows for bucket in found),
    }
    total["newlines between documents"] = total["tokens in rows"] + total["tokens left over"] - sum(sizes.values())
    index = {"buckets": [asdict(bucket) for bucket in found], "counts": total}
    write_atomically(rows.folder / _INDEX, json.dumps(index).encode())


def _numbered(blocks: Sequence[documents.Selected]) -> dict[str, dict[str, Any]]:
    """The blocks, and how many documents of each split come before them."""
    before: Counter[str] = Counter()
    tasks = {}
    for block in blocks:
        tasks[block.name] = {"before": dict(before)}
        before.update(block.documents)
    return tasks


def _cut(sizes: Mapping[str, int]) -> Iterator[HashRange]:
    """The buckets of each split, by its number of tokens."""
    for split in SPLITS:
        parts = max(1, -(-sizes.get(split, 0) // BUCKET_TOKENS))
        yield from (HashRange(split, number, parts) for number in range(parts))


# --- tokenise ---------------------------------------------------------------------------------------------------------


def encode_block(folder: Path, key: str, before: Mapping[str, int], work: Path, recipe: Recipe) -> Result:
    """Runs in Ray's processes: the ids of a block's documents, by split, in the order of the shuffle.

    ``before``: the number of each split's first document. The result: tokens of each split.
    """
    tokenizer = recipe.tokenizer
    dtype = token_dtype(tokenizer.vocab_size)
    ids: dict[str, list[Tokens]] = {split: [] for split in SPLITS}
    for column in documents.groups(work, key):
        for split, text in zip(column("split"), column("text"), strict=True):
            encoded = tokenizer.encode(text)
            ids[split].append(np.fromiter(encoded, dtype, len(encoded)))
    for split, parts in ids.items():
        if parts:
            hashes = mix(recipe.seed, text_hash(split), np.arange(len(parts)) + before.get(split, 0))
            order = np.argsort(hashes, kind="stable")
            stops = np.cumsum([len(parts[index]) for index in order])
            arrays.save(folder / f"{key}-{split}.ids.npy", np.concatenate([parts[index] for index in order]))
            arrays.save(folder / f"{key}-{split}.hashes.npy", np.stack([hashes[order], stops.astype(np.uint64)]))
    return {split: sum(map(len, parts)) for split, parts in ids.items()}


@functools.lru_cache(maxsize=1)
def _tokenizer(file: Path, digest: str) -> Tokenizer:
    """``digest``: of the file, which another build of this process may have replaced."""
    return Tokenizer(file)


# --- cut rows ---------------------------------------------------------------------------------------------------------


def pack_bucket(folder: Path, key: str, share: HashRange, read: Path, blocks: Sequence[str], recipe: Recipe) -> Result:
    """Runs in Ray's processes: the stream of one bucket and the rows that are cut from it."""
    split, tokenizer = share.split, recipe.tokenizer
    newline = np.array(tokenizer.encode("\n"), token_dtype(tokenizer.vocab_size))
    texts = _shuffled(_bucket(read, blocks, share))
    stream = np.concatenate([newline[:0], *(piece for text in texts for piece in (text, newline))])
    if recipe.cuts_stream(split):
        rows, between = training_rows(len(stream), recipe.size), 0
    else:
        continues = np.array([tokenizer.continues(index) for index in range(tokenizer.vocab_size)])
        rows = document_rows(list(map(len, texts)), len(newline), recipe.size, stream, continues)
        between = len(texts) * len(newline)
    tokens = int(rows[:, 1].sum())
    left_over = len(stream) - between - tokens
    if split == "train" and recipe.packing == "documents":
        stream, rows = packed_rows(stream, rows, recipe.size)
    of_bucket = [share.number] if share.number else []
    rows = rows[permutation(len(rows), recipe.seed, text_hash(f"{split} rows"), *of_bucket)]
    target = Packed.of(folder, key)
    arrays.save(target.stream, stream)
    arrays.save(target.rows, rows)
    return asdict(Bucket(split, key, len(texts), tokens, left_over, len(rows)))


def _bucket(read: Path, blocks: Sequence[str], share: HashRange) -> Iterator[tuple[UInt64, list[Tokens]]]:
    """Hashes [N] and ids of the documents of a bucket, block by block."""
    for block in blocks:
        try:
            hashes, stops = arrays.mapped(read / f"{block}-{share.split}.hashes.npy")
        except FileNotFoundError:  # the block has no document of this split
            continue
        wanted = arrays.key_range(hashes, share.number, share.of)
        if wanted.start < wanted.stop:
            borders = [0, *stops.tolist()][wanted.start : wanted.stop + 1]
            ids = np.array(arrays.mapped(read / f"{block}-{share.split}.ids.npy")[borders[0] : borders[-1]])
            yield hashes[wanted], np.split(ids, np.array(borders[1:-1], np.int64) - borders[0])


def _shuffled(parts: Iterator[tuple[UInt64, list[Tokens]]]) -> list[Tokens]:
    """The documents in the order of their hashes."""
    hashes, texts = [np.empty(0, np.uint64)], list[Tokens]()
    for keys, block in parts:
        hashes.append(np.array(keys))
        texts += block
    return [texts[index] for index in np.argsort(np.concatenate(hashes), kind="stable")]


def training_rows(stream_length: int, size: int) -> Rows:
    """Consecutive rows of ``size`` ids; an incomplete last row is dropped unless it is the only one."""
    starts = (
        np.arange(0, stream_length - size + 1, size) if stream_length >= size else np.zeros(min(stream_length, 1), int)
    )
    return np.stack([starts, np.full(len(starts), min(size, stream_length))], axis=1).astype(np.int64)


def document_rows(lengths: Sequence[int], gap: int, size: int, stream: Tokens, continues: NDArray[np.bool_]) -> Rows:
    """Rows of at most ``size`` ids, each inside one document; cut between characters, none below SHORTEST_ROW ids.

    ``gap``: ids between two documents. ``continues`` [V]: ids that begin with a later byte of a character.
    """
    rows = []
    start = 0
    for length in lengths:
        stop = start + length
        while stop - start >= SHORTEST_ROW:
            cut = min(start + size, stop)
            while cut < stop and cut > start + 1 and continues[stream[cut]]:
                cut -= 1
            rows.append((start, cut - start))
            start = cut
        start = stop + gap
    return np.array(rows, np.int64).reshape(-1, 2)


def packed_rows(stream: Tokens, parts: Rows, size: int) -> tuple[Tokens, Rows]:
    """The parts [P, 2] of documents in ``stream``, put together to rows of at most ``size`` ids: another stream and its
    rows [R, 2]. Between two parts of a row stand the EOS of the first and the BOS of the second."""
    border = np.array([EOS_ID, BOS_ID], stream.dtype)
    ids: list[Tokens] = []
    lengths: list[int] = []
    for row in best_fit(parts[:, 1].tolist(), size, len(border)):
        bordered = [piece for start, length in parts[row] for piece in (border, stream[start : start + length])]
        ids += bordered[1:]
        lengths.append(sum(map(len, bordered[1:])))
    starts = np.cumsum([0, *lengths])[:-1]
    return np.concatenate([stream[:0], *ids]), np.array([starts, lengths], np.int64).T


def best_fit(lengths: Sequence[int], size: int, between: int) -> list[list[int]]:
    """Indices of the ``lengths`` in each row of ``size``, ``between`` places left free between two of them.

    Best fit, the longest first (Ding et al. 2024): each goes where it leaves the least room.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # free places: rows
    rooms: list[int] = []  # of those that there are, in ascending order
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        needed, place = lengths[index] + between, bisect.bisect_left(rooms, lengths[index] + between)
        if place == len(rooms):
            row, room = len(rows), size + between
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(place)
        rows[row].append(index)
        left = with_room.setdefault(room - needed, [])
        if not left:
            bisect.insort(rooms, room - needed)
        left.append(row)
    return rows


def blocks(packed: Packed, first: int, stop: int, rows_per_block: int, max_length: int) -> Iterator[Tokens]:
    """Rows ``first`` … ``stop`` - 1 as arrays [≤ rows_per_block, max_length] of ``BOS … EOS PAD …``."""
    stream, table = np.asarray(arrays.mapped(packed.stream)), np.asarray(arrays.mapped(packed.rows))
    places = np.arange(max_length)
    for begin in range(first, stop, rows_per_block):
        starts, lengths = table[begin : min(begin + rows_per_block, stop), :, None].transpose(1, 0, 2)
        is_content = (places > 0) & (places <= lengths)
        block = np.full(is_content.shape, PAD_ID, stream.dtype)
        block[is_content] = stream[(starts + places - 1)[is_content]]
        block[:, 0] = BOS_ID
        np.put_along_axis(block, lengths + 1, EOS_ID, axis=1)
        yield block


def row_ids(packed: Packed) -> Iterator[list[int]]:
    """The ids of every row, BOS and EOS excluded, in the order of the shards."""
    stream, table = np.load(packed.stream, mmap_mode="r"), np.load(packed.rows)
    for start, length in table.tolist():
        yield stream[start : start + length].tolist()
