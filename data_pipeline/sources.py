"""Sources of documents: which pieces of work there are (``units``), and the documents inside each (``read``)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from data_pipeline import archive, clean, columns, document, embedded, hub, lines, listing, opening
from data_pipeline.document import Document, Item, Reader, Skipped, SourceError, Unit, record_bytes, too_long
from data_pipeline.listing import Listing, ListingError, file_system
from data_pipeline.opening import PACKED, UNREADABLE, base_name, retried
from dualmask.config.address import is_address
from dualmask.config.data import SourceConfig

__all__ = ["Document", "Skipped", "SourceError", "Unit", "fingerprint", "fingerprints", "read", "units"]

READERS = (archive, columns, document, lines, listing, opening)
"""The modules that the documents depend on, beside this one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kind:
    suffixes: tuple[str, ...]
    read: Reader
    cut: Callable[[Unit, SourceConfig], Iterator[Unit]]

    @property
    def names(self) -> tuple[str, ...]:
        """Ends of its files' names, packed or not."""
        return tuple(suffix + packing for suffix in self.suffixes for packing in ("", *PACKED))


def _lines(kind: str, suffixes: tuple[str, ...], reader: Reader) -> _Kind:
    return _Kind(suffixes, reader, lambda unit, source: lines.cut(unit, kind, source))


_KINDS = {
    "jsonl": _lines("jsonl", (".jsonl", ".ndjson"), lines.read_jsonl),
    "csv": _lines("csv", (".csv", ".tsv"), lines.read_csv),
    "parquet": _Kind((".parquet",), columns.read_parquet, columns.cut_parquet),
    "arrow": _Kind((".arrow", ".feather"), columns.read_arrow, columns.cut_arrow),
    "webdataset": _Kind((".tar",), archive.read_archive, archive.cut_archive),
    "text": _lines("text", (".txt", ".md", ".markdown", ".rst"), lines.read_text),
    "markdown": _lines("markdown", (".md", ".markdown"), lines.read_text),
}


def units(source: SourceConfig, output: Path | None = None) -> list[Unit]:
    """All units in a fixed order; those with a split of their own come first, so that de-duplication keeps them.

    Each holds about 64 MiB at most, where the kind can be cut. ``output``: folder of the build, which is never read.
    Downloads the files of a data set that are not yet in the hub's cache, and reads plain files of more than one unit
    once to count their lines. Raises SourceError if a path matches nothing or cannot be opened.
    """
    return [unit for file in _files(source, output) for unit in _cut(file, source)]


def fingerprints(source: SourceConfig, output: Path | None = None) -> list[tuple[str, str, int, str]]:
    """What changes when a file of the source does. Reads no file."""
    return [fingerprint(file) for file in _files(source, output, quiet=True)]


def fingerprint(unit: Unit) -> tuple[str, str, int, str]:
    """Name, split, size and time of modification, or what the file system of an address has in their place."""
    if not unit.path:
        return unit.name, unit.split, 0, ""
    try:
        if is_address(unit.path):
            system, path = file_system(unit.path)
            info = retried(lambda: system.info(path))
            return unit.name, unit.split, info.get("size") or 0, _version(info)
        status = os.stat(unit.path)
    except Exception as error:  # every file system has errors of its own
        raise SourceError(f"{unit.path}: {columns.reason_of(error)}") from None
    return unit.name, unit.split, status.st_size, str(status.st_mtime_ns)


def _version(info: dict[str, object]) -> str:
    keys = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "blob_id")
    return next((str(info[key]) for key in keys if info.get(key)), "")


def _files(source: SourceConfig, output: Path | None, quiet: bool = False) -> Iterator[Unit]:
    """The files of a source, each a whole unit."""
    if source.kind == "embedded":
        yield from (Unit(name, path, "") for name, path in embedded.documents())
        return
    root = _downloaded(source) if source.kind == "huggingface" else None
    own_splits = bool(source.dev_paths or source.test_paths)
    for split, key in (("test", "test_paths"), ("dev", "dev_paths"), ("train" if own_splits else "", "paths")):
        files = Listing(_suffixes(source), output)
        for pattern in getattr(source, key):
            try:
                named = files.inside(root, pattern) if root is not None else files.add(pattern)
            except ListingError as error:
                raise SourceError(f"source.{key}: {error}") from None
            yield from (Unit(name, path, split) for name, path in named)
        if files.left_out and not quiet:
            log.info("source.%s: %s", key, files.said)


def _suffixes(source: SourceConfig) -> tuple[str, ...]:
    kinds = _KINDS.values() if source.kind == "huggingface" else [_KINDS[source.kind]]
    return tuple(dict.fromkeys(chain.from_iterable(kind.names for kind in kinds)))


def _downloaded(source: SourceConfig) -> Path:
    """The folder of the data set's files in the hub's cache."""
    try:
        patterns = [*source.paths, *source.dev_paths, *source.test_paths]
        return hub.fetch(str(source.repository), patterns, "dataset")
    except hub.HubError as error:
        remedy = "set HF_ENDPOINT to a hub that has it, or source.kind=parquet|jsonl and source.paths to local files"
        raise SourceError(f"source.repository={source.repository}: {error}: {remedy}") from None


def _kind(unit: Unit, source: SourceConfig) -> _Kind:
    if source.kind != "huggingface":
        return _KINDS[source.kind]
    return next(kind for kind in _KINDS.values() if base_name(unit.path).endswith(kind.names))


def _cut(file: Unit, source: SourceConfig) -> list[Unit]:
    file = replace(file, size=fingerprint(file)[2])
    if source.kind == "embedded":
        return [file]
    try:
        return list(_kind(file, source).cut(file, source))
    except UNREADABLE:  # ``read`` says what is wrong
        return [file]


def _refuse(skipped: Skipped) -> None:
    raise SourceError(str(skipped))


def read(unit: Unit, source: SourceConfig, skip: Callable[[Skipped], None] = _refuse) -> Iterator[Document]:
    """The documents of one unit. What cannot be read is given to ``skip`` if ``source.on_error`` is skip.

    Raises SourceError: with on_error=fail for the first record that cannot be read, else for one too many.
    """
    skip, lost = (skip if source.on_error == "skip" else _refuse), 0
    for item in _items(unit, source):
        if isinstance(item, Document):
            yield item
            continue
        skip(item)
        lost += item.records
        if lost > source.max_errors:
            raise too_many(item, source)


def too_many(last: Skipped, source: SourceConfig) -> SourceError:
    """The error for more lost records than ``source.max_errors``."""
    return SourceError(f"more than source.max_errors={source.max_errors} records cannot be read, the last: {last}")


def _items(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    if source.kind == "embedded":
        text = clean.TEXT_BREAK.join(embedded.read(unit.name, unit.path))
        yield Document(unit.name, text, unit.path or unit.name, 0, len(text.encode(errors="replace")))
        return
    items = _guarded(unit, partial(_kind(unit, source).read, unit, source))
    if source.document_start is not None:
        items = _joined(items, re.compile(source.document_start), source)
    yield from items


def _guarded(unit: Unit, reader: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """The items of a reader; what ends it early is the last of them."""
    done = 0
    try:
        for item in reader():
            done = item.stop if isinstance(item, Document) else done
            yield item
    except SourceError as error:
        yield Skipped(unit.path, "", str(error).removeprefix(f"{unit.path}: "))
    except (*UNREADABLE, UnicodeError, ListingError) as error:
        yield Skipped(unit.path, f"behind {done}" if done else "", columns.reason_of(error))


@dataclass
class _Joined:
    """A document that grows by rows. Its text is forgotten once it is too long."""

    first: Document
    stop: int = 0
    size: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, row: Document, limit: int) -> None:
        self.stop, self.size = row.stop, self.size + len(row.text) + 1
        self.texts.append(row.text.removesuffix("\n"))
        if self.size > limit:
            self.texts.clear()

    def item(self, source: SourceConfig) -> Item:
        if self.size > record_bytes(source):
            return Skipped(self.first.file, f"document {self.first.id}", too_long(source))
        return Document(self.first.id, "\n".join(self.texts), self.first.file, self.first.start, self.stop)


def _joined(items: Iterable[Item], start: re.Pattern[str], source: SourceConfig) -> Iterator[Item]:
    """The documents whose lines are ``items``: a line that matches ``start`` begins the next document."""
    joined: _Joined | None = None
    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        if joined is not None and start.match(item.text):
            yield joined.item(source)
            joined = None
        joined = joined or _Joined(item)
        joined.add(item, record_bytes(source))
    if joined is not None:
        yield joined.item(source)
