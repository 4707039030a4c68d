"""Stage 3: from documents to streams of ids, and the table of rows that are cut from each.

A training row is any ``max_length - 2`` consecutive ids of the shuffled documents or, with ``packing: documents``, as
many whole ones as fit, each with a BOS and an EOS of its own. A dev or test row never holds parts of two documents: the
first row of a document starts where the document does.

Documents are shuffled by a hash of their number. A split of more tokens than a task should hold is cut into buckets,
each a range of hashes: a bucket is a stream of its own, whose rows are shuffled and become its shards.
"""

# N documents

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import arrays, documents, lineage
from data_pipeline.files import write_atomically
from data_pipeline.hashing import UInt64, mix, permutation, text_hash
from data_pipeline.manifest import SPLITS
from data_pipeline.packed import Packed
from data_pipeline.rows import BORDER, best_fit, document_rows, joined, training_rows
from data_pipeline.shards import Tokens, token_dtype
from data_pipeline.steps import Result, Step, discard
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import Tokenizer

FOLDER = "rows"
BUCKET_TOKENS = 2**24  # what a task holds in memory: a smaller split is shuffled as a whole
_TOKENS = "tokens"
_FREQUENT = 60  # pieces that the report names
_INDEX = "index.json"


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
    return [work / FOLDER / _INDEX, *(file for part in packed for file in vars(part).values())]


def buckets(work: Path) -> list[Bucket]:
    """The buckets of a finished stage, in order."""
    return [Bucket(**bucket) for bucket in json.loads((work / FOLDER / _INDEX).read_bytes())["buckets"]]


def report(work: Path) -> dict[str, Any]:
    """What a finished stage tells: counts of tokens (of documents, in rows, left over at ends), how many documents of
    each split have as many tokens as a power of two and fewer than the next, the most frequent pieces."""
    index = json.loads((work / FOLDER / _INDEX).read_bytes())
    return {"rows": index["counts"], "lengths": index["lengths"], "pieces": index["pieces"]}


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
    lengths = {split: Counter[str]() for split in SPLITS}
    for result in tokens.run(encode_block, _numbered(blocks), work=work, recipe=recipe):
        sizes.update(result["tokens"])
        for split, of_split in lengths.items():
            of_split.update(result["lengths"][split])
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
    index: dict[str, Any] = {"buckets": [asdict(bucket) for bucket in found], "counts": total}
    index |= {"lengths": lengths, "pieces": _most_frequent([rows.folder / _pieces(key) for key in tasks], tokenizer)}
    write_atomically(rows.folder / _INDEX, json.dumps(index).encode())


def _pieces(bucket: str) -> str:
    """The file of how often each piece is in a bucket."""
    return f"{bucket}.pieces.npy"


def _most_frequent(files: Sequence[Path], tokenizer: Tokenizer) -> list[tuple[str, int]]:
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for file in files:
        counts += arrays.mapped(file)
    order = np.argsort(-counts, kind="stable")[:_FREQUENT].tolist()
    return [(tokenizer.piece(index), int(counts[index])) for index in order if counts[index]]


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

    ``before``: the number of each split's first document. The result: tokens of each split, and how many documents have
    so many.
    """
    tokenizer = recipe.tokenizer
    dtype = token_dtype(tokenizer.vocab_size)
    ids: dict[str, list[Tokens]] = {split: [] for split in SPLITS}
    origins = {split: lineage.Origins() for split in SPLITS}
    for column in documents.groups(work, key):
        for split, text, *place in zip(*map(column, ("split", "text", "file", "start", "stop")), strict=True):
            encoded = tokenizer.encode(text)
            ids[split].append(np.fromiter(encoded, dtype, len(encoded)))
            origins[split].add(*place)
    for split, parts in ids.items():
        if parts:
            hashes = mix(recipe.seed, text_hash(split), np.arange(len(parts)) + before.get(split, 0))
            order = np.argsort(hashes, kind="stable")
            stops = np.cumsum([len(parts[index]) for index in order])
            arrays.save(folder / f"{key}-{split}.ids.npy", np.concatenate([parts[index] for index in order]))
            arrays.save(folder / f"{key}-{split}.hashes.npy", np.stack([hashes[order], stops.astype(np.uint64)]))
            origins[split].save(folder, f"{key}-{split}", order)
    return {
        "tokens": {split: sum(map(len, parts)) for split, parts in ids.items()},
        "lengths": {split: Counter(1 << len(part).bit_length() >> 1 for part in parts) for split, parts in ids.items()},
    }


@functools.lru_cache(maxsize=1)
def _tokenizer(file: Path, digest: str) -> Tokenizer:
    """``digest``: of the file, which another build of this process may have replaced."""
    return Tokenizer(file)


# --- cut rows ---------------------------------------------------------------------------------------------------------


def pack_bucket(folder: Path, key: str, share: HashRange, read: Path, blocks: Sequence[str], recipe: Recipe) -> Result:
    """Runs in Ray's processes: the stream of one bucket and the rows that are cut from it."""
    split, tokenizer, target = share.split, recipe.tokenizer, Packed.of(folder, key)
    newline = np.array(tokenizer.encode("\n"), token_dtype(tokenizer.vocab_size))
    texts = _shuffled(_bucket(read, blocks, share), target.origins)
    lengths = list(map(len, texts))
    stream = np.concatenate([newline[:0], *(piece for text in texts for piece in (text, newline))])
    frequencies = np.bincount(stream, minlength=tokenizer.vocab_size)
    frequencies[newline] -= len(texts)  # they stand between documents
    arrays.save(folder / _pieces(key), frequencies)
    if recipe.cuts_stream(split):
        rows, between = training_rows(len(stream), recipe.size), 0
    else:
        continues = np.array([tokenizer.continues(index) for index in range(tokenizer.vocab_size)])
        rows = document_rows(lengths, len(newline), recipe.size, stream, continues)
        between = len(texts) * len(newline)
    tokens = int(rows[:, 1].sum())
    left_over = len(stream) - between - tokens
    pairs = lineage.documents_of_rows(rows, lengths, len(newline))
    if split == "train" and recipe.packing == "documents":
        together = best_fit(rows[:, 1].tolist(), recipe.size, BORDER)
        stream, rows = joined(stream, rows, together)
        pairs = lineage.joined(pairs, together)
    of_bucket = [share.number] if share.number else []
    order = permutation(len(rows), recipe.seed, text_hash(f"{split} rows"), *of_bucket)
    arrays.save(target.stream, stream)
    arrays.save(target.rows, rows[order])
    arrays.save(target.pairs, lineage.reordered(pairs, order))
    return asdict(Bucket(split, key, len(texts), tokens, left_over, len(rows)))


def _bucket(read: Path, blocks: Sequence[str], share: HashRange) -> Iterator[tuple[UInt64, list[Tokens], pa.Table]]:
    """Hashes [N], ids and origins of the documents of a bucket, block by block."""
    for block in blocks:
        try:
            hashes, stops = arrays.mapped(read / f"{block}-{share.split}.hashes.npy")
        except FileNotFoundError:  # the block has no document of this split
            continue
        wanted = arrays.key_range(hashes, share.number, share.of)
        if wanted.start < wanted.stop:
            # only what is wanted is read: each bucket looks at every block
            first, ends = int(stops[wanted.start - 1]) if wanted.start else 0, stops[wanted].astype(np.int64)
            ids = np.array(arrays.mapped(read / f"{block}-{share.split}.ids.npy")[first : ends[-1]])
            texts = np.split(ids, ends[:-1] - first)
            yield hashes[wanted], texts, lineage.saved_origins(read, f"{block}-{share.split}", wanted)


def _shuffled(parts: Iterator[tuple[UInt64, list[Tokens], pa.Table]], origins: Path) -> list[Tokens]:
    """The documents in the order of their hashes; writes where they come from."""
    hashes, texts, tables = [np.empty(0, np.uint64)], list[Tokens](), list[pa.Table]()
    for keys, block, table in parts:
        hashes.append(np.array(keys))
        texts += block
        tables.append(table)
    order = np.argsort(np.concatenate(hashes), kind="stable")
    lineage.save_bucket(origins, tables, order)
    return [texts[index] for index in order]
