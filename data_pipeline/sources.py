"""Where documents come from: which files there are, and the raw documents inside one."""

from __future__ import annotations

import glob
import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from data_pipeline import embedded
from dualmask.config.data import SourceConfig

_SUFFIXES = {"jsonl": (".jsonl", ".jsonl.gz", ".jsonl.xz"), "text": (".txt", ".md", ".rst")}


class SourceError(ValueError):
    """Raw text that cannot be read: one line that names the file and the remedy."""


@dataclass(frozen=True)
class Unit:
    """What one task reads: a file, or one document of the embedded corpus."""

    name: str
    path: str
    split: str  # "" where the document's hash decides


@dataclass(frozen=True)
class RawDocument:
    id: str
    split: str
    texts: list[str]


def units(source: SourceConfig) -> list[Unit]:
    """All units in their fixed order; those with a split of their own come first, so that de-duplication keeps them.

    Raises SourceError where a path matches nothing.
    """
    if source.kind == "embedded":
        return [Unit(name, path, "") for name, path in embedded.documents()]
    own_splits = bool(source.dev_paths or source.test_paths)
    groups = [("test", "test_paths"), ("dev", "dev_paths"), ("train" if own_splits else "", "paths")]
    return [
        Unit(name, str(path), split)
        for split, key in groups
        for pattern in getattr(source, key)
        for name, path in _files(pattern, source.kind, key)
    ]


def _files(pattern: str, kind: str, key: str) -> list[tuple[str, Path]]:
    """(name, path) of the files that ``pattern`` means; names are relative to it, so that they survive a move."""
    if Path(pattern).is_dir():
        root = Path(pattern)
        found = [
            (path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.name.endswith(_SUFFIXES[kind])
        ]
    else:
        paths = [Path(path) for path in glob.glob(pattern, recursive=True)]
        found = [(path.name, path) for path in paths if path.is_file()]
    if not found:
        raise SourceError(f"source.{key}: {pattern!r} matches no {' or '.join(_SUFFIXES[kind])} file")
    return sorted(found)


def fingerprint(unit: Unit) -> tuple[str, str, int, int]:
    """Changes when the unit's file does."""
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
        with _open(unit.path) as file:
            if source.kind == "text":
                yield RawDocument(unit.name, unit.split, [file.read()])
            else:
                yield from _json_lines(file, unit, source)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise SourceError(f"{unit.path}: cannot be read: {error}") from None


def _json_lines(file: TextIO, unit: Unit, source: SourceConfig) -> Iterator[RawDocument]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        record = _parse(line, unit, number)
        text = record.get(source.text_field)
        if not isinstance(text, str):
            fields = ", ".join(map(str, record))
            raise SourceError(
                f"{unit.path} line {number}: no text in source.text_field={source.text_field!r}; the line has: {fields}"
            )
        yield RawDocument(str(record.get(source.id_field, f"{unit.name}:{number}")), unit.split, [text])


def _parse(line: str, unit: Unit, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{unit.path} line {number}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise SourceError(f"{unit.path} line {number}: not a JSON object but {type(record).__name__}")
    return record


def _open(path: str) -> TextIO:
    """The file's text, unpacked; bytes that are not UTF-8 become U+FFFD (and are cleaned away)."""
    if path.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8", errors="replace")
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return open(path, encoding="utf-8", errors="replace")
