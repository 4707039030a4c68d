"""Sources of documents: the list of files, and the raw documents inside each."""

from __future__ import annotations

import glob
import gzip
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import embedded, hub
from dualmask.config.data import SourceConfig

_SUFFIXES = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.xz"),
    "parquet": (".parquet",),
    "text": (".txt", ".md", ".rst"),
}
_ROWS = 1024  # of a parquet file that are in memory at a time

Row = tuple[str, str]  # name and text


class SourceError(ValueError):
    """Raw text cannot be read. The message is one line that names the file and the remedy."""


@dataclass(frozen=True)
class Unit:
    """The work of one task: a file, or one document of the embedded corpus."""

    name: str
    path: str
    split: str  # "" if the document's hash decides


@dataclass(frozen=True)
class RawDocument:
    id: str
    split: str
    texts: list[str]


def units(source: SourceConfig) -> list[Unit]:
    """All units in a fixed order; those with a split of their own come first, so that de-duplication keeps them.

    Downloads the files of a data set that are not yet in the hub's cache. Raises SourceError if a path matches
    nothing or the hub does not provide it.
    """
    if source.kind == "embedded":
        return [Unit(name, path, "") for name, path in embedded.documents()]
    root = _downloaded(source) if source.kind == "huggingface" else None
    own_splits = bool(source.dev_paths or source.test_paths)
    groups = [("test", "test_paths"), ("dev", "dev_paths"), ("train" if own_splits else "", "paths")]
    suffixes = _SUFFIXES.get(source.kind) or tuple(chain.from_iterable(_SUFFIXES.values()))
    return [
        Unit(name, str(path), split)
        for split, key in groups
        for pattern in getattr(source, key)
        for name, path in _files(root, pattern, suffixes, key)
    ]


def _downloaded(source: SourceConfig) -> Path:
    """The folder of the data set's files in the hub's cache."""
    try:
        patterns = [*source.paths, *source.dev_paths, *source.test_paths]
        return hub.fetch(str(source.repository), patterns, "dataset")
    except hub.HubError as error:
        remedy = "set HF_ENDPOINT to a hub that has it, or source.kind=parquet|jsonl and source.paths to local files"
        raise SourceError(f"source.repository={source.repository}: {error}: {remedy}") from None


def _files(root: Path | None, pattern: str, suffixes: tuple[str, ...], key: str) -> list[tuple[str, Path]]:
    """(name, path) of the files that match ``pattern``, inside ``root`` if there is one.

    Names are relative to ``root`` or to the pattern, so that they do not change when the files are moved.
    """
    if root is not None:
        names = glob.glob(pattern, root_dir=root, recursive=True)
        files = [(name, root / name) for name in names if name.endswith(suffixes)]
    elif Path(pattern).is_dir():
        folder = Path(pattern)
        paths = [path for path in folder.rglob("*") if path.name.endswith(suffixes)]
        files = [(path.relative_to(folder).as_posix(), path) for path in paths]
    else:
        paths = [Path(path) for path in glob.glob(pattern, recursive=True)]
        files = [(path.name, path) for path in paths if path.is_file()]
    if not files:
        raise SourceError(f"source.{key}: {pattern!r} matches no {' or '.join(suffixes)} file")
    return sorted(files)


def fingerprint(unit: Unit) -> tuple[str, str, int, int]:
    """Name, split, size and modification time: changes when the unit's file does."""
    if not unit.path:
        return unit.name, unit.split, 0, 0
    status = Path(unit.path).stat()
    return unit.name, unit.split, status.st_size, status.st_mtime_ns


def read(unit: Unit, source: SourceConfig) -> Iterator[RawDocument]:
    """The documents of one unit. Raises SourceError."""
    if source.kind == "embedded":
        yield RawDocument(unit.name, unit.split, embedded.read(unit.name, unit.path))
        return
    try:
        rows = _rows(unit, source)
        if source.document_start is not None:
            rows = _joined(rows, re.compile(source.document_start))
        for name, text in rows:
            yield RawDocument(name, unit.split, [text])
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(f"{unit.path}: cannot be read: {reason}") from None


def _rows(unit: Unit, source: SourceConfig) -> Iterator[Row]:
    """The documents of a file, or with ``source.document_start`` the lines of its documents."""
    kind: str = source.kind
    if kind == "huggingface":
        kind = next(name for name, suffixes in _SUFFIXES.items() if unit.name.endswith(suffixes))
    if kind == "parquet":
        yield from _parquet_rows(unit, source)
        return
    with _open(unit.path) as file:
        if kind == "jsonl":
            yield from _json_lines(file, unit, source)
        elif source.document_start is None:
            yield unit.name, file.read()
        else:
            yield from ((f"{unit.name}:{number}", line) for number, line in enumerate(file, 1))


def _joined(rows: Iterable[Row], start: re.Pattern[str]) -> Iterator[Row]:
    """The documents that consist of the lines ``rows``: a line that matches ``start`` begins the next document."""
    first, lines = "", list[str]()
    for name, text in rows:
        if lines and start.match(text):
            yield first, "\n".join(lines)
            lines = []
        first = first if lines else name
        lines.append(text.removesuffix("\n"))
    if lines:
        yield first, "\n".join(lines)


def _parquet_rows(unit: Unit, source: SourceConfig) -> Iterator[Row]:
    with pq.ParquetFile(unit.path) as file:
        names = file.schema_arrow.names
        if source.text_field not in names:
            raise SourceError(
                f"{unit.path}: no column source.text_field={source.text_field!r}; the file has: {', '.join(names)}"
            )
        columns = [name for name in names if name in (source.text_field, source.id_field)]
        batches = file.iter_batches(_ROWS, columns=columns)
        for number, record in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1):
            yield _row(record, "row", number, unit, source)


def _json_lines(file: TextIO, unit: Unit, source: SourceConfig) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _row(_parse(line, unit, number), "line", number, unit, source)


def _row(record: dict[str, Any], word: str, number: int, unit: Unit, source: SourceConfig) -> Row:
    """``word``: the name of a record in messages, "row" or "line"."""
    text = record.get(source.text_field)
    if not isinstance(text, str):
        location, fields = f"{unit.path} {word} {number}", ", ".join(map(str, record))
        raise SourceError(f"{location}: no text in source.text_field={source.text_field!r}; the {word} has: {fields}")
    return str(record.get(source.id_field, f"{unit.name}:{number}")), text


def _parse(line: str, unit: Unit, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{unit.path} line {number}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise SourceError(f"{unit.path} line {number}: not a JSON object but {type(record).__name__}")
    return record


def _open(path: str) -> TextIO:
    """The file's text, decompressed; bytes that are not UTF-8 become U+FFFD (which cleaning removes)."""
    if path.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8", errors="replace")
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return open(path, encoding="utf-8", errors="replace")
