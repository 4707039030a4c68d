"""Reader of webdataset's tar archives: members that share the first part of their names are a sample."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from data_pipeline.document import (
    UNIT_BYTES,
    Document,
    Item,
    Names,
    Skipped,
    Unit,
    not_unicode,
    record_bytes,
    too_long,
    undecodable,
    value_at,
)
from data_pipeline.opening import UNREADABLE, opened, packing_of
from dualmask.config.address import is_address
from dualmask.config.data import SourceConfig

_TEXT, _JSON = "txt", "json"
_CHUNK_BYTES = 2**20


class _Forward:
    """A stream that tarfile may read: it goes forward only, and knows where it is."""

    def __init__(self, stream: BinaryIO, position: int) -> None:
        self._stream, self._position = stream, position

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        while self._position < position and self.read(min(position - self._position, _CHUNK_BYTES)):
            pass
        return self._position


@contextmanager
def _archive(unit: Unit) -> Iterator[_Forward]:
    with opened(unit.path) as stream:
        if unit.start:
            stream.seek(unit.start)
        yield _Forward(stream, unit.start)


def _members(stream: _Forward) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All members. Other than tarfile's own iteration it ends at the mark of the end only.

    Raises tarfile.TarError at what is no header, EOFError at an archive without end.
    """
    archive = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
    member = archive.next()
    while member is not None:
        yield archive, member
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        if stream.seek(archive.offset) < archive.offset:
            raise EOFError("its end is missing")
        try:
            member = tarfile.TarInfo.fromtarfile(archive)
        except tarfile.HeaderError as error:
            _check_end(error, stream)
            return


def _check_end(error: tarfile.HeaderError, stream: _Forward) -> None:
    position = stream.tell()
    if isinstance(error, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
        raise EOFError("its end is missing") from None
    if not isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise tarfile.ReadError(f"{error} before byte {position}") from None
    while chunk := stream.read(_CHUNK_BYTES):
        if chunk.strip(b"\0"):
            raise tarfile.ReadError(f"something stands behind its end at byte {position}")


def _key(name: str) -> tuple[str, str]:
    """webdataset's key and extension of a member's name."""
    folder, base = os.path.split(name)
    stem, _, extension = base.partition(".")
    return os.path.join(folder, stem), extension.lower()


@dataclass
class _Sample:
    """``members``: extension → content, None if it is too long; ``places``: extension → first byte, byte behind it.
    ``linked``: a text of it is none itself, but names another file."""

    key: str
    start: int
    members: dict[str, bytes | None] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    linked: bool = False

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> None:
        """Members of which no text is made are passed over."""
        extension = _key(member.name)[1]
        if extension in (_TEXT, _JSON):
            self.linked |= not member.isfile()
            self.members[extension] = _content(archive, member, limit)
            self.places[extension] = (member.offset_data, member.offset_data + member.size)


def _samples(unit: Unit, stream: _Forward, limit: int) -> Iterator[_Sample]:
    """The samples of a unit, also the one before a place where the archive cannot be read."""
    sample: _Sample | None = None
    try:
        for archive, member in _members(stream):
            if member.isdir():
                continue
            key, extension = _key(member.name)
            if sample is None or sample.key != key or extension in sample.members:  # the next may have the same key
                if sample is not None:
                    yield sample
                if unit.stop is not None and member.offset >= unit.stop:
                    return
                sample = _Sample(key, member.offset)
            sample.add(archive, member, limit)
    except UNREADABLE:
        if sample is not None and sample.members:
            yield sample
        raise
    if sample is not None:
        yield sample


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes | None:
    if member.size > limit:
        return None
    file = archive.extractfile(member) if member.isfile() else None
    content = file.read() if file is not None else b""
    if len(content) < member.size:
        raise EOFError("its end is missing")
    return content


def cut_archive(unit: Unit, source: SourceConfig) -> Iterator[Unit]:
    """Parts of a local plain archive, which begin where a sample does; others are one."""
    size = 0 if packing_of(unit.path) or is_address(unit.path) else os.path.getsize(unit.path)
    if size <= UNIT_BYTES or source.document_start is not None:
        yield unit
        return
    starts, first = [(0, 1)], 0
    with open(unit.path, "rb") as file:
        for first, sample in enumerate(_samples(unit, _Seeking(file), limit=-1), 1):
            if sample.start - starts[-1][0] >= UNIT_BYTES:
                starts.append((sample.start, first))
    stops = [start for start, _ in starts[1:]]
    for (start, first), stop in zip(starts, [*stops, None], strict=True):
        yield replace(unit, start=start, stop=stop, first=first, size=(stop or size) - start)


class _Seeking(_Forward):
    """Skips without reading."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, 0)

    def seek(self, position: int) -> int:
        self._position = self._stream.seek(min(position, self._size()))
        return self._position

    def _size(self) -> int:
        return os.fstat(self._stream.fileno()).st_size


def read_archive(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    names = Names(unit)
    with _archive(unit) as stream:
        for sample in _samples(unit, stream, record_bytes(source)):
            yield _document(sample, names, source)


def _document(sample: _Sample, names: Names, source: SourceConfig) -> Item:
    path, place = names.unit.path, f"sample {sample.key}"
    if sample.linked:
        return Skipped(path, place, "its text is a link: put the text there, webdataset follows none")
    if None in sample.members.values():
        return Skipped(path, place, too_long(source))
    try:
        record = _record(sample)
        plain = sample.members.get(_TEXT)
        text = value_at(record, source.text_field) if plain is None else plain.decode()
    except UnicodeDecodeError as error:
        return Skipped(path, place, undecodable(error, "utf-8"))
    except (ValueError, RecursionError) as error:
        return Skipped(path, place, f"its .json is not JSON: {error}")
    if not isinstance(text, str):
        has = ", ".join([*(f".{extension}" for extension in sample.members), *map(str, record)])[:500]
        return Skipped(path, place, f"no .txt, and no text in source.text_field={source.text_field!r}; it has: {has}")
    if problem := not_unicode(text):
        return Skipped(path, place, problem)
    start, stop = sample.places[_TEXT if _TEXT in sample.members else _JSON]
    return Document(names.of(value_at(record, source.id_field), sample.key), text, path, start, stop)


def _record(sample: _Sample) -> dict[str, Any]:
    record = json.loads(sample.members.get(_JSON) or b"{}")
    if not isinstance(record, dict):
        raise ValueError(f"not an object but {type(record).__name__}")
    return record
