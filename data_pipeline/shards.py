"""Shards: tar files whose members are blocks of tokenised sequences.

A member ``{key}.tokens.npy`` is a uint16 or uint32 array [rows, max_length]; a row is ``BOS … EOS PAD …``, so its
length is the number of its ids that are not PAD; a packed one is ``BOS … EOS BOS … EOS PAD …``. Equal rows give equal
bytes: times and owners are zero.
"""

# R rows of a member, T tokens of a row

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files import replacing
from data_pipeline.manifest import Member, ShardInfo
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, PRED_ID

Tokens = NDArray[np.unsignedinteger]

MEMBER_HEADER = tarfile.BLOCKSIZE  # bytes before its content


class BadMember(ValueError):
    """The member is damaged; the message says how."""


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def member_name(file: str, number: int) -> str:
    return f"{file.removesuffix('.tar')}-{number:06d}.tokens.npy"


def write_shard(folder: Path, file: str, blocks: Iterable[Tokens]) -> ShardInfo:
    """Writes ``blocks`` [R, T] as the members of shard ``file``, atomically; one member is in memory at a time."""
    members = []
    with replacing(folder / file) as temporary, temporary.open("wb") as target:
        stream = _Digested(target)
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            for number, block in enumerate(blocks):
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(block), version=(1, 0), allow_pickle=False)
                entry = tarfile.TarInfo(member_name(file, number))
                entry.size = content.tell()
                members.append(Member(stream.bytes, entry.size, zlib.crc32(content.getbuffer()), len(block)))
                content.seek(0)
                tar.addfile(entry, content)
    return ShardInfo(file=file, bytes=stream.bytes, sha256=stream.digest.hexdigest(), members=tuple(members))


class _Digested:
    """A file that is only appended to, with the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.bytes, self.digest = file, 0, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.bytes += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self.bytes


def read_member(
    shard: BinaryIO, name: str, member: Member, max_length: int, vocab_size: int, *, packed: bool = False
) -> tuple[Tokens, NDArray[np.int64]]:
    """Rows [R, T] of one member and their lengths [R]. Raises BadMember; never executes anything that it reads.
    ``packed``: they may hold several texts."""
    size, end = shard.seek(0, io.SEEK_END), member.offset + MEMBER_HEADER + member.bytes
    if end > size:  # a forged table would have any amount of memory asked for
        raise BadMember(f"ends at byte {end} of {size}")
    shard.seek(member.offset)
    header, content = shard.read(MEMBER_HEADER), shard.read(member.bytes)
    try:
        entry = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadMember(f"no tar header at byte {member.offset}: {error}") from None
    if entry.name != name or entry.size != member.bytes or not entry.isreg():
        raise BadMember(f"holds {entry.name!r} of {entry.size} bytes, not {name!r} of {member.bytes}")
    if zlib.crc32(content) != member.crc32:
        raise BadMember("checksum differs from the manifest's")
    tokens = _parse(content, (member.rows, max_length), token_dtype(vocab_size))
    return tokens, _checked_lengths(tokens, vocab_size, packed)


def _parse(content: bytes, shape: tuple[int, int], dtype: np.dtype[np.unsignedinteger]) -> Tokens:
    """Checks the header before it reads the content, so that neither a pickle nor a huge shape has an effect."""
    stream = io.BytesIO(content)
    try:
        np.lib.format.read_magic(stream)
        stored_shape, fortran, stored_dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # it holds a Python literal, and not every text that is none is a ValueError
        raise BadMember(f"not a .npy array: {' '.join(str(error).split())[:100]}") from None
    if (stored_shape, fortran, stored_dtype) != (shape, False, dtype):
        raise BadMember(f"array {stored_dtype}{list(stored_shape)}, not {dtype}{list(shape)}")
    if len(content) - stream.tell() != shape[0] * shape[1] * dtype.itemsize:
        raise BadMember("array of another size than its header says")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)


def _checked_lengths(tokens: Tokens, vocab_size: int, packed: bool) -> NDArray[np.int64]:
    """Lengths [R] of rows ``BOS content EOS PAD…`` whose content ids are above the special ids; of ``packed`` rows, any
    number of these before the PAD. Raises BadMember."""
    if tokens.size == 0:
        raise BadMember("no sequences")
    if (largest := int(tokens.max())) >= vocab_size:
        raise BadMember(f"id {largest} is not below vocab_size={vocab_size}")
    lengths = np.count_nonzero(tokens != PAD_ID, axis=1)
    special = np.count_nonzero(tokens <= PRED_ID, axis=1)
    borders = np.count_nonzero((tokens[:, :-1] == EOS_ID) & (tokens[:, 1:] == BOS_ID), axis=1) if packed else 0
    known = 2 + 2 * borders + tokens.shape[1] - lengths  # BOS, EOS, those between two texts, PAD… and nothing else
    last = tokens[np.arange(len(tokens)), np.maximum(lengths - 1, 0)]
    if (tokens[:, 0] != BOS_ID).any() or (last != EOS_ID).any() or (special != known).any():
        raise BadMember("rows are not BOS … EOS PAD …")
    return lengths
