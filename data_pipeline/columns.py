"""Readers of files that consist of columns: parquet and Arrow. Memory: some rows of the columns that are read.

Nothing of a file is believed before Arrow has checked it: a damaged offset would otherwise be read as an address.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.document import (
    UNIT_BYTES,
    Document,
    Item,
    Names,
    Skipped,
    SourceError,
    Unit,
    record_bytes,
    too_long,
    undecodable,
)
from data_pipeline.opening import UNREADABLE, opened_for_seeking, packing_of
from dualmask.config.address import is_address
from dualmask.config.data import SourceConfig

_ROWS = 1024  # of a parquet file that are in memory at a time, if they are short
_BATCH_BYTES = 8 * 2**20
_BUFFER_BYTES = 2**20
_FILE_MAGIC = b"ARROW1"
_END_OF_STREAM = struct.pack("<ii", -1, 0)


def reason_of(error: BaseException) -> str:
    return f"cannot be read: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"


def _rows(first: int, number: int) -> str:
    return f"row {first}" if number == 1 else f"rows {first} to {first + number - 1}"


# --- parquet ---------------------------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES, "page_checksum_verification": True}
    with opened_for_seeking(path) as stream, pq.ParquetFile(stream, **options) as file:
        yield file


def cut_parquet(unit: Unit, source: SourceConfig) -> Iterator[Unit]:
    """Parts of a file that hold whole row groups. One that holds documents of several rows stays whole."""
    if packing_of(unit.path) or source.document_start is not None:
        yield unit
        return
    with _parquet(unit.path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        yield from _parts(unit, [(group.num_rows, group.total_byte_size) for group in groups])


def _parts(unit: Unit, blocks: list[tuple[int, int]]) -> Iterator[Unit]:
    """Parts of a file whose blocks have so many (rows, bytes)."""
    start, first, rows, size = 0, 1, 0, 0
    for number, (block_rows, block_bytes) in enumerate(blocks):
        if rows and size + block_bytes > UNIT_BYTES:
            yield replace(unit, start=start, stop=number, first=first, size=size)
            start, first, rows, size = number, first + rows, 0, 0
        rows, size = rows + block_rows, size + block_bytes
    yield replace(unit, start=start, stop=len(blocks), first=first, size=size) if start else unit


def read_parquet(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    names = Names(unit)
    with _parquet(unit.path) as file:
        columns = _columns(file.schema_arrow, unit, source)
        first = unit.first
        for number in range(unit.start, file.num_row_groups if unit.stop is None else unit.stop):
            group = file.metadata.row_group(number)
            yield from _row_group(file, number, columns, first, names, source)
            first += group.num_rows


def _row_group(
    file: pq.ParquetFile, number: int, columns: list[str], first: int, names: Names, source: SourceConfig
) -> Iterator[Item]:
    """The rows of a row group; where it is damaged, what is left of it is lost."""
    group = file.metadata.row_group(number)
    length = max(1, min(_ROWS, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
    done = 0
    try:
        for batch in file.iter_batches(length, row_groups=[number], columns=columns):
            items = list(_documents(batch, first + done, names, source))
            done += len(batch)
            yield from items
        if done != group.num_rows:
            raise EOFError(f"row group {number} has {done} of {group.num_rows} rows")
    except UNREADABLE as error:
        lost = max(1, group.num_rows - done)
        yield Skipped(names.unit.path, _rows(first + done, lost), reason_of(error), lost)


# --- Arrow -----------------------------------------------------------------------------------------------------------


@contextmanager
def _arrow(path: str) -> Iterator[pa.NativeFile]:
    if is_address(path) or packing_of(path):
        with opened_for_seeking(path) as stream:
            yield pa.PythonFile(stream, "r")
    else:
        with pa.memory_map(path) as mapped:
            yield mapped


def _batches(file: pa.NativeFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch | Exception]]:
    """The record batches of either of Arrow's formats; an error in place of one that is damaged."""
    magic = file.read(len(_FILE_MAGIC))
    file.seek(0)
    if magic != _FILE_MAGIC:
        stream = pa.ipc.open_stream(file)
        return stream.schema, _streamed(stream, file)
    reader = pa.ipc.open_file(file)
    return reader.schema, (_batch(reader, number) for number in range(reader.num_record_batches))


def _batch(reader: pa.ipc.RecordBatchFileReader, number: int) -> pa.RecordBatch | Exception:
    try:
        return reader.get_batch(number)
    except UNREADABLE as error:
        return error


def _streamed(stream: pa.ipc.RecordBatchStreamReader, file: pa.NativeFile) -> Iterator[pa.RecordBatch | Exception]:
    try:
        yield from stream
        end, size = file.tell(), file.size()
        if end != size:
            yield EOFError(f"its end stands at byte {end} of {size}")
        file.seek(max(0, end - len(_END_OF_STREAM)))
        if file.read(len(_END_OF_STREAM)) != _END_OF_STREAM:
            yield EOFError("its end is missing")
    except UNREADABLE as error:
        yield error


def cut_arrow(unit: Unit, source: SourceConfig) -> Iterator[Unit]:
    """Parts of a file that hold whole record batches; of packed and remote ones there is one."""
    if is_address(unit.path) or packing_of(unit.path) or source.document_start is not None:
        yield unit
        return
    with _arrow(unit.path) as file:
        sizes = []
        for batch in _batches(file)[1]:
            if isinstance(batch, Exception):
                yield unit
                return
            sizes.append((len(batch), batch.get_total_buffer_size()))
    yield from _parts(unit, sizes)


def read_arrow(unit: Unit, source: SourceConfig) -> Iterator[Item]:
    names = Names(unit)
    with _arrow(unit.path) as file:
        schema, batches = _batches(file)
        columns = _columns(schema, unit, source)
        first = unit.first
        for number, batch in zip(count(), batches):
            if unit.stop is not None and number >= unit.stop:
                return
            if number < unit.start:
                continue
            if isinstance(batch, Exception):
                yield Skipped(unit.path, f"record batch {number + 1}", reason_of(batch))
                continue
            yield from _record_batch(
                batch.select(sorted({name.split(".")[0] for name in columns})), first, names, source
            )
            first += len(batch)


def _record_batch(batch: pa.RecordBatch, first: int, names: Names, source: SourceConfig) -> Iterator[Item]:
    done = 0
    try:
        for start in range(0, len(batch), _ROWS):
            items = list(_documents(batch.slice(start, _ROWS), first + start, names, source))
            yield from items
            done = start + len(items)
    except UNREADABLE as error:
        lost = len(batch) - done
        yield Skipped(names.unit.path, _rows(first + done, lost), reason_of(error), lost)


# --- columns ---------------------------------------------------------------------------------------------------------


def _columns(schema: pa.Schema, unit: Unit, source: SourceConfig) -> list[str]:
    """The columns to read. Raises SourceError if there is no text."""
    kind = _type_at(schema, source.text_field)
    if kind is None:
        names = ", ".join(schema.names)[:500]
        raise SourceError(f"{unit.path}: no column source.text_field={source.text_field!r}; the file has: {names}")
    if not _is_text(kind):
        raise SourceError(
            f"{unit.path}: column source.text_field={source.text_field!r} holds {kind}: name one of texts"
        )
    named = _type_at(schema, source.id_field) is not None
    return [source.text_field, *([source.id_field] if named and source.id_field != source.text_field else [])]


def _type_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    if path in schema.names:
        return schema.field(schema.get_field_index(path)).type if schema.names.count(path) == 1 else None
    head, *rest = path.split(".")
    if schema.names.count(head) != 1:
        return None
    kind = schema.field(head).type
    for part in rest:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


def _column(batch: pa.RecordBatch, path: str) -> pa.Array | None:
    """The values of field ``a.b``, which Arrow has checked; texts as bytes. None if there is no such field."""
    if _type_at(batch.schema, path) is None:
        return None
    head, *rest = [path] if path in batch.schema.names else path.split(".")
    column = batch.column(batch.schema.get_field_index(head))
    column.validate()
    for part in rest:
        column = pc.struct_field(column, part)
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column.validate(full=True)
        column = column.cast(pa.large_string())
    bytes_like = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    if column.type in bytes_like:
        column = column.view(bytes_like[column.type])  # so that one bad text is not the end of all
    column.validate(full=True)
    return column


def _documents(batch: pa.RecordBatch, first: int, names: Names, source: SourceConfig) -> Iterator[Item]:
    texts, ids = _column(batch, source.text_field), _column(batch, source.id_field)
    for index in range(len(batch)):
        number = first + index
        text = texts[index].as_py() if texts is not None else None
        name = ids[index].as_py() if ids is not None else None
        yield _document(text, name, number, batch.schema, names, source)


def _document(text: Any, name: Any, number: int, schema: pa.Schema, names: Names, source: SourceConfig) -> Item:
    place, path = f"row {number}", names.unit.path
    if not isinstance(text, bytes):
        fields = ", ".join(schema.names)
        return Skipped(path, place, f"no text in source.text_field={source.text_field!r}; the row has: {fields}")
    if len(text) > record_bytes(source):
        return Skipped(path, place, too_long(source))
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        return Skipped(path, place, undecodable(error, "utf-8"))
    if isinstance(name, bytes):
        name = name.decode(errors="backslashreplace")
    return Document(names.of(name, number), decoded, path, number - 1, number)
