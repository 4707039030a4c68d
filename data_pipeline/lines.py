"""Readers of files that consist of lines: text, jsonl, csv. Memory: a buffer and one record."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from data_pipeline.document import (
    UNIT_BYTES,
    Document,
    Item,
    Names,
    Skipped,
    SourceError,
    Unit,
    document,
    record_bytes,
    too_long,
    undecodable,
)
from data_pipeline.opening import open_as_stored, opened, packing_of
from dualmask.config.data import SourceConfig

_CHUNK_BYTES = 2**20

Line = tuple[int, bytes | None, int]  # start, content without line break (None: too long), stop


def _one_byte_breaks(encoding: str) -> bool:
    """Whether the byte 10 is a line break and nothing else, so that lines can be told apart before they are decoded."""
    return "\n".encode(encoding) == b"\n"


def _in_bytes(encoding: str) -> str:
    """The encoding of the bytes that ``_content`` gives."""
    return encoding if _one_byte_breaks(encoding) else "utf-8"


@contextmanager
def _content(unit: Unit, source: SourceConfig) -> Iterator[BinaryIO]:
    """The unpacked file at the beginning of the unit; in UTF-8 if its own encoding has line breaks of several bytes."""
    with opened(unit.path) as stream:
        if unit.start:
            stream.seek(unit.start)
        yield stream if _one_byte_breaks(source.encoding) else _Recoded.buffered(stream, source.encoding)


class _Recoded(io.RawIOBase):
    """``stream``, whose text is in ``encoding``, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._decoder, self._rest = stream, codecs.getincrementaldecoder(encoding)(), b""

    @classmethod
    def buffered(cls, stream: BinaryIO, encoding: str) -> BinaryIO:
        return io.BufferedReader(cls(stream, encoding), _CHUNK_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = self._stream.read(_CHUNK_BYTES)
            self._rest = self._decoder.decode(chunk, final=not chunk).encode()
            if not chunk:
                break
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _lines(stream: BinaryIO, unit: Unit, limit: int) -> Iterator[Line]:
    position, end = unit.start, sys.maxsize if unit.stop is None else unit.stop
    while position < end:
        line = stream.readline(limit + 2)
        if not line:
            if unit.stop is not None:
                raise EOFError(f"it ends at byte {position}, and was longer when the build began")
            return
        start, position = position, position + len(line)
        if len(line) > limit and not line.endswith(b"\n"):
            position += _skip_line(stream)
            yield start, None, position
            continue
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        yield start, line if start else line.removeprefix(codecs.BOM_UTF8), position


def _skip_line(stream: BinaryIO) -> int:
    """Reads to the end of a line; returns the number of bytes."""
    size = 0
    while part := stream.readline(_CHUNK_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def read_text(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    """One document a file; with ``source.document_start`` its lines, a document each."""
    with _content(unit, source) as stream:
        if source.document_start is not None:
            yield from _text_lines(stream, unit, source)
            return
        content = stream.read(record_bytes(source) + 1)
        if len(content) > record_bytes(source):
            yield Skipped(unit.path, "", f"the text is {too_long(source)}, or set source.document_start")
            return
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode(_in_bytes(source.encoding))
        except UnicodeDecodeError as error:
            yield Skipped(unit.path, "", undecodable(error, source.encoding))
            return
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield Document(unit.name, text, unit.path, 0, len(content))


def _text_lines(stream: BinaryIO, unit: Unit, source: SourceConfig) -> Iterator[Item]:
    for number, (start, line, stop) in enumerate(_lines(stream, unit, record_bytes(source)), unit.first):
        try:
            if line is None:
                yield Skipped(unit.path, f"line {number}", too_long(source))
            else:
                text = line.decode(_in_bytes(source.encoding))
                yield Document(f"{unit.name}:{number}", text, unit.path, start, stop)
        except UnicodeDecodeError as error:
            yield Skipped(unit.path, f"line {number}", undecodable(error, source.encoding))


def read_jsonl(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    names = Names(unit)
    with _content(unit, source) as stream:
        for number, (start, line, stop) in enumerate(_lines(stream, unit, record_bytes(source)), unit.first):
            if line is None:
                yield Skipped(unit.path, f"line {number}", too_long(source))
            elif line.strip():
                record = _parsed(line, source)
                if isinstance(record, str):
                    yield Skipped(unit.path, f"line {number}", record)
                else:
                    yield document(record, "line", number, start, stop, names, source)


def _parsed(line: bytes, source: SourceConfig) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    try:
        record = json.loads(line.decode(_in_bytes(source.encoding)))
    except UnicodeDecodeError as error:
        return undecodable(error, source.encoding)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return record if isinstance(record, dict) else f"not a JSON object but {type(record).__name__}"


def read_csv(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    names = Names(unit)
    header = _header(unit, source) if unit.start else None
    with _content(unit, source) as stream:
        for row in _csv_rows(stream, unit, source):
            if isinstance(row, Skipped):
                yield row
                continue
            number, start, stop, fields = row
            if header is None:
                header = _checked(fields, unit, source)
            elif len(fields) != len(header):
                reason = f"{len(fields)} fields, and the first line names {len(header)}"
                yield Skipped(unit.path, f"line {number}", reason)
            else:
                yield _csv_document(dict(zip(header, fields, strict=True)), number, start, stop, names, source)


def _csv_document(
    record: dict[str, str], number: int, start: int, stop: int, names: Names, source: SourceConfig
) -> Item:
    text = record.get(source.text_field, "")
    if text.isascii():
        return document(record, "line", number, start, stop, names, source)
    if undecoded := next((character for character in text if "\udc80" <= character <= "\udcff"), ""):
        byte = f"{ord(undecoded) - 0xDC00:02x}"
        reason = f"not {source.encoding} (byte 0x{byte}): name another source.encoding, or mend the file"
        return Skipped(names.unit.path, f"line {number}", reason)
    return document(record, "line", number, start, stop, names, source)


def _header(unit: Unit, source: SourceConfig) -> list[str]:
    whole = replace(unit, start=0, stop=None, first=1)
    with _content(whole, source) as stream:
        for row in _csv_rows(stream, whole, source):
            if not isinstance(row, Skipped):
                return _checked(row[3], unit, source)
    raise SourceError(f"{unit.path}: no line names the fields: add one")


def _checked(header: list[str], unit: Unit, source: SourceConfig) -> list[str]:
    if source.text_field not in header:
        fields = ", ".join(header)[:500]
        raise SourceError(
            f"{unit.path}: no column source.text_field={source.text_field!r}; the first line has: {fields}"
        )
    return header


class _TooLong(Exception):
    pass


class _Decoded:
    """The decoded lines of a csv file, for the csv module; counts them. Bytes that are no text become surrogates."""

    def __init__(self, lines: Iterator[Line], unit: Unit, encoding: str) -> None:
        self._lines, self._encoding = lines, encoding
        self.read, self.stop = 0, unit.start

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        _, line, self.stop = next(self._lines)
        self.read += 1
        if line is None:
            raise _TooLong
        return line.decode(self._encoding, "surrogateescape") + "\n"


def _csv_rows(
    stream: BinaryIO, unit: Unit, source: SourceConfig
) -> Iterator[Skipped | tuple[int, int, int, list[str]]]:
    """(number of its first line, start, stop, fields) of each row; behind a damaged one goes on."""
    csv.field_size_limit(record_bytes(source))
    delimiter = "\t" if ".tsv" in unit.name else ","
    decoded = _Decoded(_lines(stream, unit, record_bytes(source)), unit, _in_bytes(source.encoding))
    rows = csv.reader(decoded, delimiter=delimiter, strict=True)
    while True:
        before, start = decoded.read, decoded.stop
        try:
            fields = next(rows)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            lost = decoded.read - before
            long = isinstance(error, _TooLong) or "field limit" in str(error)
            reason = too_long(source) if long else f"no CSV: {error}"
            last = unit.first + decoded.read - 1
            place = f"line {last}" if lost == 1 else f"lines {unit.first + before} to {last}"
            yield Skipped(unit.path, place, reason, lost)
            rows = csv.reader(decoded, delimiter=delimiter, strict=True)
            continue
        if fields:
            yield unit.first + before, start, decoded.stop, fields


# --- units -----------------------------------------------------------------------------------------------------------


def cut(unit: Unit, kind: str, source: SourceConfig) -> Iterator[Unit]:
    """The units of a whole file of lines: plain files in parts that begin where a document does, others as they are.

    A file of several parts is read once from its beginning to its end, to count its lines.
    """
    size = 0 if packing_of(unit.path) or not _one_byte_breaks(source.encoding) else _size(unit.path)
    whole_only = kind in ("text", "markdown") and source.document_start is None
    if size <= UNIT_BYTES or whole_only or (kind == "csv" and _holds(unit.path, b'"')):
        yield unit
        return
    with open_as_stored(unit.path) as file:
        start, first = 0, 1
        while start < size:
            stop = _next_start(file, start + UNIT_BYTES, size, _begins(kind, source))
            yield replace(unit, start=start, stop=stop, first=first, size=stop - start)
            if stop < size:
                first += _count_lines(file, start, stop)
            start = stop


def _size(path: str) -> int:
    with open_as_stored(path) as file:
        return file.seek(0, io.SEEK_END) if file.seekable() else 0


def _holds(path: str, byte: bytes) -> bool:
    with open_as_stored(path) as file:
        return any(byte in chunk for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))


def _next_start(file: BinaryIO, at: int, size: int, begins: Callable[[bytes], bool]) -> int:
    """The first place behind ``at`` where a line stands that begins a document, or ``size``."""
    if at >= size:
        return size
    file.seek(at)
    position = at + _skip_line(file)
    while position < size:
        line = file.readline(_CHUNK_BYTES)
        if begins(line):
            return position
        position += len(line) + (0 if line.endswith(b"\n") else _skip_line(file))
    return size


def _begins(kind: str, source: SourceConfig) -> Callable[[bytes], bool]:
    if source.document_start is None:
        return lambda line: True
    pattern = re.compile(source.document_start)

    def begins(line: bytes) -> bool:
        text: Any = line.decode(_in_bytes(source.encoding), "replace")
        if kind == "jsonl":
            record = _parsed(line, source)
            text = record.get(source.text_field) if isinstance(record, dict) else None
        return isinstance(text, str) and bool(pattern.match(text))

    return begins


def _count_lines(file: BinaryIO, start: int, stop: int) -> int:
    file.seek(start)
    lines, left = 0, stop - start
    while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
        lines += chunk.count(b"\n")
        left -= len(chunk)
    return lines
