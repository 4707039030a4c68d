"""Stage 1: from raw sources to the blocks of ``documents/`` (id, split, place, text), cleaned and de-duplicated.

Four steps, each a pass over blocks on disk: read and clean; near-duplicates; paragraphs seen before; select.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import arrays, clean, decontaminate, dedup, embedded, scripts, signatures, similar, skipped, sources
from data_pipeline.dedup import Place
from data_pipeline.files import replacing, write_atomically
from data_pipeline.hashing import UInt64, mix, text_hash, unit
from data_pipeline.manifest import SPLITS
from data_pipeline.sources import Skipped, SourceError, Unit
from data_pipeline.stages import WORK_FOLDER
from data_pipeline.steps import Result, Step, discard
from dualmask.config.data import DataBuildConfig, SplitConfig

FOLDER = "documents"
_INDEX = "index.json"
_READ = "read"
_EVALUATION = "evaluation.npy"
_CLEANED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("file", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("paragraphs", pa.list_(pa.large_string())),
    ]
)
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("file", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("bytes", pa.int64()),
        ("text", pa.large_string()),
    ]
)
_ROWS = 256  # documents of one table in memory
_TASK_BYTES, _TASK_UNITS = 8 * 2**20, 256  # of input: small units share a task
_BLOCK_BYTES, _BLOCK_DOCUMENTS = 16 * 2**20, 2**14  # of cleaned text: what any later task holds in memory


@dataclass(frozen=True)
class Block:
    """Consecutive documents of the corpus, cleaned."""

    name: str
    documents: int
    paragraphs: int


@dataclass(frozen=True)
class Selected:
    """A block of ``documents/``: how many documents of each split."""

    name: str
    documents: dict[str, int]


def inputs(config: DataBuildConfig) -> dict[str, Any]:
    """What the documents depend on. The embedded corpus is that of the packages installed at its first build."""
    values = config.model_dump(mode="json", include={"source", "clean", "dedup", "decontaminate", "split", "seed"})
    if config.source.kind == "embedded":
        values["python"] = sys.version.split()[0]
    else:
        files = repr(sources.fingerprints(config.source, _never_read(config)))
        values["files"] = hashlib.sha256(files.encode()).hexdigest()
    values["evaluation_files"] = decontaminate.inputs(config.decontaminate)
    modules = (
        clean,
        decontaminate,
        dedup,
        embedded,
        scripts,
        signatures,
        similar,
        sources,
        *sources.READERS,
        sys.modules[__name__],
    )
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    values["code"] = hashlib.sha256(code).hexdigest()
    return values


def _never_read(config: DataBuildConfig) -> Path:
    """The output; of several corpora beside each other, that of all."""
    above = config.output.absolute().parent
    return above if (above / WORK_FOLDER).is_dir() else config.output


def outputs(work: Path) -> list[Path]:
    """The files of a finished stage."""
    folder = work / FOLDER
    try:
        names = [block.name for block in selected(work)]
    except (OSError, ValueError, KeyError):
        names = []
    return [folder / _INDEX, *(folder / f"{name}.parquet" for name in names)]


def selected(work: Path) -> list[Selected]:
    """The blocks of a finished stage, in order."""
    return [Selected(**block) for block in json.loads((work / FOLDER / _INDEX).read_bytes())["blocks"]]


def report(work: Path) -> dict[str, Any]:
    """What a finished stage tells of its documents: counts, scripts, groups of near-duplicates."""
    index = json.loads((work / FOLDER / _INDEX).read_bytes())
    return {"documents": index["counts"], "scripts": index["scripts"], "groups": index["groups"]}


def extract(config: DataBuildConfig, work: Path, made_from: str) -> None:
    """Writes ``work/documents/`` with a running Ray. Raises SourceError, also if no training text is left.

    ``made_from``: digest of ``inputs``.
    """
    total: Counter[str] = Counter()
    read = Step(work / _READ, made_from)
    blocks = _read(config, read, total)
    places = _places(blocks)
    found = dedup.find(work, made_from, read.folder, places, config.dedup)
    looked_for = config.dedup.near_duplicate is not None
    alike = similar.groups(work, made_from, read.folder, places) if looked_for else []
    step = Step(work / FOLDER, made_from)
    tasks = {block.name: {"place": place, "block": block} for block, place in zip(blocks, places[:-1], strict=True)}
    kept, letters, main = [], Counter[str](), Counter[str]()
    for result in step.run(select, tasks, read=read.folder, found=found, config=config):
        kept.append(Selected(**result["block"]))
        total.update(result["counts"])
        letters.update(result["letters"])
        main.update(result["main scripts"])
    if not any(block.documents["train"] for block in kept):
        raise SourceError("no training text is left after cleaning: give more source.paths or lower clean.min_words")
    written = {name: {"letters": count, "documents": main[name]} for name, count in letters.most_common()}
    index = {"blocks": [asdict(block) for block in kept], "counts": dict(total), "scripts": written, "groups": alike}
    write_atomically(step.folder / _INDEX, json.dumps(index).encode())


def tidy(work: Path) -> None:
    """Removes what only the unfinished stage needs."""
    for name in (_READ, *dedup.FOLDERS):
        discard(work / name)


# --- read and clean ---------------------------------------------------------------------------------------------------


def _read(config: DataBuildConfig, step: Step, total: Counter[str]) -> list[Block]:
    """All blocks of cleaned documents; adds to ``total`` what was read and dropped."""
    if not (step.folder / _EVALUATION).exists():
        decontaminate.write_runs(step.folder / _EVALUATION, config.decontaminate)
    blocks: list[Block] = []
    for result in step.run(read_units, _groups(sources.units(config.source, _never_read(config))), config=config):
        blocks += [Block(**block) for block in result["blocks"]]
        total.update(result["counts"])
    total["records that cannot be read"] += skipped.collect(step.folder, config.output, config.source)
    return blocks


def _groups(units: Sequence[Unit]) -> dict[str, dict[str, list[Unit]]]:
    """The units of each task: consecutive ones, a large one alone."""
    groups: list[list[Unit]] = []
    room = 0
    for part in units:
        size = max(part.size, _TASK_BYTES // _TASK_UNITS)
        if size > room or not groups:
            groups.append([])
            room = _TASK_BYTES
        groups[-1].append(part)
        room -= size
    return {f"{number:06d}": {"units": group} for number, group in enumerate(groups)}


def _places(blocks: Iterable[Block]) -> list[Place]:
    places, documents, paragraphs = [], 0, 0
    for block in blocks:
        places.append(Place(block.name, documents, paragraphs))
        documents += block.documents
        paragraphs += block.paragraphs
    return [*places, Place("", documents, paragraphs)]


def read_units(folder: Path, key: str, units: list[Unit], config: DataBuildConfig) -> Result:
    """Runs in Ray's processes: the cleaned documents of ``units`` as blocks, and the keys that they are compared by."""
    total: Counter[str] = Counter()
    blocks: list[Block] = []
    evaluation = arrays.mapped(folder / _EVALUATION)
    with skipped.recorded(folder, key) as skip:
        documents = _cleaned(units, config, evaluation, total, skip)
        while rows := _up_to_a_block(documents):
            blocks.append(_write_block(folder, f"{key}-{len(blocks):04d}", rows))
    return {"blocks": [asdict(block) for block in blocks], "counts": dict(total)}


def _cleaned(
    units: Iterable[Unit],
    config: DataBuildConfig,
    evaluation: UInt64,
    total: Counter[str],
    skip: Callable[[Skipped], None],
) -> Iterator[dict[str, Any]]:
    for part in units:
        for document in sources.read(part, config.source, skip):
            total["documents read"] += 1
            total["characters read"] += len(document.text)
            paragraphs = clean.paragraphs([document.text], config.clean.style)
            if not clean.has_words(paragraphs, config.clean.min_words):
                total["documents below clean.min_words"] += 1
                continue
            split = part.split or split_of(document.id, config.split, config.seed)
            text = " ".join(paragraphs) if split == "train" and len(evaluation) else ""
            if decontaminate.shares_a_run(text, evaluation, config.decontaminate.ngram):
                total["documents that share words with evaluation files"] += 1
                continue
            yield {
                "id": document.id,
                "split": split,
                "file": document.file,
                "start": document.start,
                "stop": document.stop,
                "paragraphs": paragraphs,
            }


def _up_to_a_block(documents: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    rows, size = [], 0
    for row in documents:
        rows.append(row)
        size += sum(map(len, row["paragraphs"]))
        if size >= _BLOCK_BYTES or len(rows) == _BLOCK_DOCUMENTS:
            break
    return rows


def _write_block(folder: Path, name: str, rows: list[dict[str, Any]]) -> Block:
    with replacing(folder / f"{name}.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, _CLEANED), temporary, row_group_size=_ROWS)
    paragraphs = [row["paragraphs"] for row in rows]
    signatures.write_keys(folder, name, paragraphs)
    return Block(name, len(rows), sum(map(len, paragraphs)))


def split_of(document_id: str, shares: SplitConfig, seed: int) -> str:
    """The split of a document, a function of the hash of its id."""
    fraction = unit(mix(seed, text_hash(document_id)))[0]
    if fraction < shares.test:
        return "test"
    return "dev" if fraction < shares.test + shares.dev else "train"


# --- select -----------------------------------------------------------------------------------------------------------


def select(
    folder: Path, key: str, place: Place, block: Block, read: Path, found: dedup.Found, config: DataBuildConfig
) -> Result:
    """Runs in Ray's processes: the block without what is dropped."""
    total, letters, main = Counter[str](), Counter[str](), Counter[str]()
    selected = Selected(key, dict.fromkeys(SPLITS, 0))
    with replacing(folder / f"{key}.parquet") as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
        for rows in _kept(place, block, read, found, config, total):
            for row in rows:
                selected.documents[row["split"]] += 1
                total["bytes kept"] += row["bytes"]
                of_text = scripts.count_letters(row["text"])
                letters.update(of_text)
                main.update(name for name, _ in of_text.most_common(1))
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    total["documents kept"] += sum(selected.documents.values())
    return {"block": asdict(selected), "counts": dict(total), "letters": letters, "main scripts": main}


def _kept(
    place: Place, block: Block, read: Path, found: dedup.Found, config: DataBuildConfig, total: Counter[str]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a block that are kept, some hundred at a time. Counts why others are not."""
    reasons = found.documents(place, block.documents)
    new = found.new_paragraphs(place, block.paragraphs)
    document = paragraph = 0
    for batch in pq.ParquetFile(read / f"{block.name}.parquet").iter_batches(batch_size=_ROWS):
        rows = []
        for row in batch.to_pylist():
            part = new[paragraph : paragraph + len(row["paragraphs"])]
            if text := _text(row["paragraphs"], int(reasons[document]), part, config, total):
                rows.append({**row, "text": text, "bytes": len(text.encode())})
            document, paragraph = document + 1, paragraph + len(part)
        yield rows


def _text(paragraphs: list[str], reason: int, new: np.ndarray, config: DataBuildConfig, total: Counter[str]) -> str:
    """What is kept of a document; empty if it is dropped. Counts why."""
    if reason:
        total[dedup.REASONS[reason]] += 1
        return ""
    left = [text for text, first in zip(paragraphs, new, strict=True) if first]
    total["paragraphs seen before"] += len(paragraphs) - len(left)
    if not clean.has_words(left, config.clean.min_words):
        total["documents below clean.min_words without paragraphs seen before"] += 1
        return ""
    return clean.PARAGRAPH_BREAK[config.clean.style].join(left)


def rows(work: Path, block: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The documents of one block, some hundred in memory at a time."""
    file = pq.ParquetFile(work / FOLDER / f"{block}.parquet")
    for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
        yield from batch.to_pylist()


def groups(work: Path, block: str) -> Iterator[Callable[[str], list[Any]]]:
    """Some hundred documents of a block at a time, as a function that reads one column of them."""
    file = pq.ParquetFile(work / FOLDER / f"{block}.parquet")
    return (partial(_column, file, number) for number in range(file.num_row_groups))


def _column(file: pq.ParquetFile, group: int, name: str) -> list[Any]:
    values: list[Any] = file.read_row_group(group, [name])[name].to_pylist()
    return values
