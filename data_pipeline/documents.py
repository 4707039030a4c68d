"""Stage 1: from raw sources to ``documents.parquet`` (id, split, text), cleaned and de-duplicated."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import clean, dedup, embedded, skipped, sources
from data_pipeline.files import replacing
from data_pipeline.hashing import mix, text_hash, unit
from data_pipeline.progress import ProgressBar
from data_pipeline.sources import SourceError
from dualmask.config.data import CleanConfig, DataBuildConfig, SourceConfig, SplitConfig

DOCUMENTS_FILE = "documents.parquet"
_SCHEMA = pa.schema([("id", pa.string()), ("split", pa.string()), ("text", pa.large_string())])
_CLEANED = pa.schema(
    [
        ("unit", pa.int64()),
        ("id", pa.string()),
        ("split", pa.string()),
        ("paragraphs", pa.list_(pa.large_string())),
        ("hashes", pa.binary()),
        ("signature", pa.binary()),
    ]
)
_SKIPPED = "skipped"
_ROWS = 256  # documents of one table in transit
_TASKS = 48  # enough for all processes to finish at about the same time


def inputs(config: DataBuildConfig) -> dict[str, Any]:
    """What the documents depend on. The embedded corpus is that of the packages installed at its first build."""
    values = config.model_dump(mode="json", include={"source", "clean", "dedup", "split", "seed"})
    if config.source.kind == "embedded":
        values["python"] = sys.version.split()[0]
    else:
        files = repr(sources.fingerprints(config.source, config.output))
        values["files"] = hashlib.sha256(files.encode()).hexdigest()
    code = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (clean, dedup, embedded, sources, *sources.READERS)
    )
    values["code"] = hashlib.sha256(code).hexdigest()
    return values


def extract(config: DataBuildConfig, folder: Path) -> None:
    """Writes ``folder/documents.parquet`` with a running Ray. Raises SourceError, also if no training text is left."""
    cleaned = folder / "cleaned.parquet"
    skipped.begin(folder / _SKIPPED)
    hashes, signatures = _read_and_clean(config, cleaned, folder / _SKIPPED)
    skipped.collect(folder / _SKIPPED, config.output, config.source)
    kept = np.ones(len(hashes), bool)
    if config.dedup.near_duplicate is not None:
        kept = ~dedup.near_duplicates(signatures, config.dedup.near_duplicate)
    new = [np.ones(len(part), bool) for part in hashes]
    if config.dedup.paragraphs:
        new = dedup.first_seen([part if keep else part[:0] for part, keep in zip(hashes, kept, strict=True)])
    with replacing(folder / DOCUMENTS_FILE) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
        first, has_training_text = 0, False
        for batch in pq.ParquetFile(cleaned).iter_batches(batch_size=_ROWS):
            part = slice(first, first + len(batch))
            selected = _selected(batch, kept[part], new[part], config)
            writer.write_table(selected)
            has_training_text |= "train" in selected["split"].to_pylist()
            first = part.stop
        if not has_training_text:
            raise SourceError(
                "no training text is left after cleaning: give more source.paths or lower clean.min_words"
            )
    cleaned.unlink()


def _read_and_clean(config: DataBuildConfig, target: Path, lost: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Writes the cleaned documents to ``target`` in source order; returns paragraph hashes and signatures [N, 64]."""
    import ray

    units = sources.units(config.source, config.output)
    rows = [{"unit": number, **asdict(unit)} for number, unit in enumerate(units)]
    tasks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _TASKS))
    options = {"source": config.source, "clean_config": config.clean, "lost": lost.absolute()}
    cleaned = tasks.map_batches(clean_units, fn_kwargs=options, batch_format="pyarrow", batch_size=_ROWS)
    hashes: list[np.ndarray] = []
    signatures: list[np.ndarray] = []
    with (
        replacing(target) as temporary,
        pq.ParquetWriter(temporary, _CLEANED) as writer,
        ProgressBar("read", len(units)) as bar,
    ):
        for table in cleaned.iter_batches(batch_format="pyarrow", batch_size=None):
            if not len(table):
                continue
            writer.write_table(table.select(_CLEANED.names).cast(_CLEANED))
            hashes += [np.frombuffer(part, np.uint64) for part in table["hashes"].to_pylist()]
            signatures += [np.frombuffer(part, np.uint64) for part in table["signature"].to_pylist()]
            bar.advance_to(table["unit"][-1].as_py() + 1)
        bar.advance_to(len(units))
    return hashes, np.stack(signatures) if signatures else np.empty((0, 64), np.uint64)


def clean_units(batch: pa.Table, source: SourceConfig, clean_config: CleanConfig, lost: Path) -> Iterator[pa.Table]:
    """Runs in Ray's processes: the cleaned documents of some units, with their hashes."""
    rows = []
    for row in batch.to_pylist():
        number = row.pop("unit")
        part = sources.Unit(**row)
        with skipped.recorded(lost, f"{number:09d}") as skip:
            for document in sources.read(part, source, skip):
                paragraphs = clean.paragraphs([document.text], clean_config.style)
                if sum(map(clean.count_words, paragraphs)) < clean_config.min_words:
                    continue
                rows.append(
                    {
                        "unit": number,
                        "id": document.id,
                        "split": part.split,
                        "paragraphs": paragraphs,
                        "hashes": dedup.paragraph_hashes(paragraphs).tobytes(),
                        "signature": dedup.signature(" ".join(paragraphs)).tobytes(),
                    }
                )
                if len(rows) == _ROWS:
                    yield pa.Table.from_pylist(rows, _CLEANED)
                    rows = []
    yield pa.Table.from_pylist(rows, _CLEANED)


def _selected(batch: pa.RecordBatch, kept: np.ndarray, new: list[np.ndarray], config: DataBuildConfig) -> pa.Table:
    rows = []
    for row, keep, mask in zip(batch.to_pylist(), kept, new, strict=True):
        if not keep:
            continue
        paragraphs = [text for text, first in zip(row["paragraphs"], mask, strict=True) if first]
        if sum(map(clean.count_words, paragraphs)) < config.clean.min_words:
            continue
        text = clean.PARAGRAPH_BREAK[config.clean.style].join(paragraphs)
        split = row["split"] or split_of(row["id"], config.split, config.seed)
        rows.append({"id": row["id"], "split": split, "text": text})
    return pa.Table.from_pylist(rows, _SCHEMA)


def split_of(document_id: str, shares: SplitConfig, seed: int) -> str:
    """The split of a document, a function of the hash of its id."""
    fraction = unit(mix(seed, text_hash(document_id)))[0]
    if fraction < shares.test:
        return "test"
    return "dev" if fraction < shares.test + shares.dev else "train"


def texts(folder: Path, split: str | None = None) -> Iterator[tuple[str, str, str]]:
    """(id, split, text) of the documents in ``folder``, of one split or of all."""
    for batch in pq.ParquetFile(folder / DOCUMENTS_FILE).iter_batches(batch_size=_ROWS):
        for row in batch.to_pylist():
            if split in (None, row["split"]):
                yield row["id"], row["split"], row["text"]
