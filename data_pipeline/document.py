"""What passes from sources to the rest of the pipeline: pieces of work, documents, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dualmask.config.data import SourceConfig

UNIT_BYTES = 64 * 2**20
"""About so much input (unpacked, where the file says it) is one piece of work."""
_IDS = 200_000  # of one unit that are remembered, to know equal ones


class SourceError(ValueError):
    """Raw text cannot be read. The message is one line that names the file and the remedy."""


@dataclass(frozen=True)
class Unit:
    """The work of one task: a part of a file, or one document of the embedded corpus.

    ``start`` and ``stop`` count bytes of text, jsonl, csv and webdataset, row groups of parquet, record batches of
    arrow; ``first`` is the number of the first line or row, from 1.
    """

    name: str
    path: str
    split: str  # "" if the document's hash decides
    start: int = 0
    stop: int | None = None  # None: to the end
    first: int = 1
    size: int = 0  # bytes to read, about


@dataclass(frozen=True)
class Document:
    """``start`` and ``stop`` are its place in the unpacked ``file``: bytes, or rows counted from 0.

    With an ``encoding`` in which a line break is not one byte, bytes are counted as if the file were UTF-8.
    """

    id: str
    text: str
    file: str
    start: int
    stop: int


@dataclass(frozen=True)
class Skipped:
    """Records that cannot be read. ``place``: "line 3", "rows 5 to 9"; empty: the whole file."""

    file: str
    place: str
    reason: str
    records: int = 1  # so many are lost; of a part whose records cannot be counted, 1

    def __str__(self) -> str:
        return f"{self.file}{' ' * bool(self.place)}{self.place}: {self.reason}"


Item = Document | Skipped
Reader = Callable[[Unit, SourceConfig], Iterator[Item]]


def record_bytes(source: SourceConfig) -> int:
    """Longest record in bytes."""
    return int(source.max_record_megabytes * 2**20)


def too_long(source: SourceConfig) -> str:
    return f"longer than source.max_record_megabytes={source.max_record_megabytes:g}: raise it, or split the record"


def undecodable(error: UnicodeDecodeError, encoding: str) -> str:
    byte = error.object[error.start : error.start + 1].hex()
    return f"not {encoding} (byte 0x{byte} at {error.start}): name another source.encoding, or mend the file"


_ABSENT = object()


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """Field ``a.b`` of a record: that name as it is, or field b of field a. ``None`` if there is none."""
    if path in record:
        return record[path]
    value: Any = record
    for part in path.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return None if value is _ABSENT else value


@dataclass
class Names:
    """Names of the records of one unit: their own, or FILE:LINE where it is missing, empty or taken."""

    unit: Unit
    _taken: set[int] = field(default_factory=set)

    def of(self, value: Any, number: int | str) -> str:
        name = "" if value is None else str(value)
        key = hash(name)
        if not name or key in self._taken:
            return f"{self.unit.name}:{number}"
        if len(self._taken) < _IDS:
            self._taken.add(key)
        return name


def document(
    record: Mapping[str, Any], place: str, number: int, start: int, stop: int, names: Names, source: SourceConfig
) -> Item:
    """The document of a record of named fields. ``place``: "line" or "row", which messages call it."""
    text = value_at(record, source.text_field)
    if not isinstance(text, str):
        fields = ", ".join(map(str, record))
        reason = f"no text in source.text_field={source.text_field!r}; the {place} has: {fields}"
        return Skipped(names.unit.path, f"{place} {number}", reason[:500])
    if not text.isascii() and (problem := not_unicode(text)):
        return Skipped(names.unit.path, f"{place} {number}", problem)
    return Document(names.of(value_at(record, source.id_field), number), text, names.unit.path, start, stop)


def not_unicode(text: str) -> str:
    """Why a text is none that UTF-8 can hold; empty if it is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"the text is no Unicode: U+{ord(text[error.start]):04X} at {error.start} is half a character"
    return ""
