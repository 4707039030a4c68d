"""Opens files wherever they lie: local paths or fsspec addresses, plain or packed, as streams of bytes.

A packed file whose end is missing, or that holds anything else than its format says, is an error, never a short file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import tenacity

from dualmask.config.address import is_address

PACKED = (".gz", ".zst", ".xz", ".bz2")
UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, pa.ArrowException, MemoryError)
"""What libraries raise for files that are damaged, absent or not theirs to read."""

_CHUNK_BYTES = 2**20
_XZ_BYTES = 2**28  # memory that a file may ask for; xz -9 needs a quarter of it
_TRIES = 5
_LONGEST_WAIT_SECONDS = 8.0
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError, NotImplementedError)
_TOO_BUSY = (408, 429)  # HTTP: time is up; too many requests

Result = TypeVar("Result")


def base_name(path: str) -> str:
    """The last part of a path or address, without an address's query."""
    return PurePosixPath(urlsplit(path).path if path.startswith("http") else path).name


def packing_of(path: str) -> str:
    """The suffix in PACKED that ``path`` ends with, or an empty string."""
    return next((suffix for suffix in PACKED if base_name(path).endswith(suffix)), "")


def retried(action: Callable[[], Result]) -> Result:
    """``action()``, tried again with growing pauses while the other side may recover."""
    retry = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_exponential(0.2, max=_LONGEST_WAIT_SECONDS),
        retry=tenacity.retry_if_exception(may_pass),
        reraise=True,
    )
    return retry(action)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt to read from an address may go better."""
    if not isinstance(error, Exception):  # a signal
        return False
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error  # fsspec: a 500 is FileNotFoundError
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in _TOO_BUSY
    return not isinstance(error, _FINAL)


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The unpacked content of ``path`` from its beginning, a buffered stream. Raises UNREADABLE."""
    with open_as_stored(path) as stored:
        packing = packing_of(path)
        if not packing:
            yield stored
            return
        with io.BufferedReader(Unpacked(stored, packing), _CHUNK_BYTES) as stream:
            yield stream


@contextmanager
def opened_for_seeking(path: str) -> Iterator[BinaryIO]:
    """The same with any position to be sought: what is packed lies on the local disk meanwhile."""
    if not packing_of(path):
        with open_as_stored(path) as stored:
            if not stored.seekable():
                raise OSError("its server serves no parts of files: download it, and give the local path")
            yield stored
        return
    with opened(path) as stream, tempfile.TemporaryFile() as copy:
        while chunk := stream.read(_CHUNK_BYTES):
            copy.write(chunk)
        copy.seek(0)
        yield copy


def open_as_stored(path: str) -> io.BufferedReader:
    """The bytes of ``path`` as they lie there, packed or not."""
    return io.BufferedReader(_Remote(path), _CHUNK_BYTES) if is_address(path) else open(path, "rb")


class _Remote(io.RawIOBase):
    """A file at an fsspec address. A read that fails is tried again, at the same place of a newly opened file."""

    def __init__(self, address: str) -> None:
        self._address, self._position = address, 0
        self._file: Any = None
        retried(self._open)

    def _open(self) -> Any:
        if self._file is None:
            system, path = fsspec.core.url_to_fs(self._address)
            file = system.open(path, "rb")
            if file.seekable():
                file.seek(self._position)
            else:
                _discard(file, self._position)
            self._file = file
        return self._file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._open().seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._open().seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = retried(lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _read(self, size: int) -> bytes:
        try:
            return self._open().read(size)
        except Exception:
            self._file = None
            raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def _discard(file: Any, size: int) -> None:
    while size and (part := file.read(min(size, _CHUNK_BYTES))):
        size -= len(part)


class Unpacked(io.RawIOBase):
    """What ``stored`` holds, unpacked; ``packing`` is one of PACKED. Memory: a chunk and the format's window."""

    def __init__(self, stored: io.BufferedReader, packing: str) -> None:
        if not stored.peek(1):
            raise EOFError(f"an empty file is no {packing} file")
        self._read = _READERS[packing](stored)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _streams(new: Callable[[], Any], padding: bytes) -> Callable[[BinaryIO], Callable[[int], bytes]]:
    """Reads streams that stand behind each other. The standard library's files of these formats take damage at the
    beginning of the second for the end of the file."""

    def reader(stored: BinaryIO) -> Callable[[int], bytes]:
        decompressor = new()

        def read(size: int) -> bytes:
            nonlocal decompressor
            content = b""
            while not content:
                if decompressor.eof:
                    rest = (decompressor.unused_data or stored.read(_CHUNK_BYTES)).lstrip(padding)
                    while not rest and (more := stored.read(_CHUNK_BYTES)):
                        rest = more.lstrip(padding)
                    if not rest:
                        return b""
                    decompressor = new()
                else:
                    rest = stored.read(_CHUNK_BYTES) if decompressor.needs_input else b""
                    if decompressor.needs_input and not rest:
                        raise EOFError("its end is missing")
                content = decompressor.decompress(rest, size)
            return content

        return read

    return reader


def _zst(stored: BinaryIO) -> Callable[[int], bytes]:
    stream = pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd")

    def read(size: int) -> bytes:
        buffer = bytearray(min(size, _CHUNK_BYTES))  # ``stream.read`` loses its own when it fails
        return bytes(buffer[: stream.readinto(buffer)])

    return read


_READERS: dict[str, Callable[[BinaryIO], Callable[[int], bytes]]] = {
    ".gz": lambda stored: gzip.GzipFile(fileobj=stored).read,
    ".zst": _zst,
    ".xz": _streams(lambda: lzma.LZMADecompressor(memlimit=_XZ_BYTES), b"\0"),
    ".bz2": _streams(bz2.BZ2Decompressor, b""),
}
