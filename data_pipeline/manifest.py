"""The content of a data folder, with each shard's digest; written after everything else.

``manifest.json`` is the head; it names the digests of ``shards.npy`` and ``members.npy``, the columns of tables.py.
Folders of format 1 hold everything in ``manifest.json`` and are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_pipeline.files import write_atomically
from data_pipeline.tables import (
    MEMBER_COLUMNS,
    SHARD_COLUMNS,
    Count,
    Digest,
    Member,
    ShardInfo,
    Shards,
    joined,
    map_table,
    parted,
    table_bytes,
)
from dualmask.config.mixture import MIXTURE_FILE

__all__ = ["MANIFEST_FILE", "SPLITS", "TOKENIZER_FILE", "Manifest", "ManifestError", "Member", "ShardInfo", "SplitInfo"]

MANIFEST_FILE = "manifest.json"
SHARDS_FILE, MEMBERS_FILE = "shards.npy", "members.npy"
TOKENIZER_FILE = "tokenizer.model"
SPLITS = ("train", "dev", "test")

Split = Literal["train", "dev", "test"]


class ManifestError(ValueError):
    """The data folder cannot be used. The message is one line that names the file and the remedy."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitInfo(_Record):
    documents: Count
    tokens: Count = Field(description="tokens in rows, BOS and EOS excluded")
    rows: Count
    shards: Shards


class _About(_Record):
    """What all formats say of a folder."""

    source: str
    tokenizer: str = Field("", description="where the tokenizer comes from")
    config_digest: Digest
    tokenizer_digest: Digest
    vocab_size: Count
    max_length: Count
    packing: Literal["stream", "documents"] = Field("stream", description="documents: train rows hold several texts")
    dtype: Literal["uint16", "uint32"]


class _Head1(_About):
    """Everything in one file."""

    format: Literal[1]
    splits: dict[Split, SplitInfo]


class _SplitHead(_Record):
    documents: Count
    tokens: Count
    rows: Count
    shards: Count = Field(description="how many; they follow those of the split before")


class _Tables(_Record):
    shards: Digest
    members: Digest


class _Head2(_About):
    format: Literal[2] = 2
    splits: dict[Split, _SplitHead]
    tables: _Tables = Field(description="SHA-256 of shards.npy and members.npy")


_HEAD: TypeAdapter[_Head1 | _Head2] = TypeAdapter(Annotated[_Head1 | _Head2, Field(discriminator="format")])


class Manifest(_About):
    splits: dict[Split, SplitInfo]

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Raises ManifestError."""
        path = Path(folder) / MANIFEST_FILE
        head = read_head(path)
        splits = head.splits if isinstance(head, _Head1) else _split_infos(path.parent, head)
        for name, info in splits.items():
            if (rows := int(info.shards.rows.sum())) != info.rows:
                raise _damaged(path, f"splits.{name}.rows: {info.rows}, the shards have {rows}")
        return cls.model_construct(**_about(head), splits=splits)

    def save(self, folder: Path) -> None:
        shards, members = map(table_bytes, joined(info.shards for info in self.splits.values()))
        write_atomically(folder / SHARDS_FILE, shards[0])
        write_atomically(folder / MEMBERS_FILE, members[0])
        heads = {
            name: _SplitHead(documents=info.documents, tokens=info.tokens, rows=info.rows, shards=len(info.shards))
            for name, info in self.splits.items()
        }
        head = _Head2(**_about(self), splits=heads, tables=_Tables(shards=shards[1], members=members[1]))
        write_atomically(folder / MANIFEST_FILE, head.model_dump_json(indent=1).encode() + b"\n")

    def has(self, name: str) -> bool:
        """Whether there are sequences in split ``name``."""
        return any(known == name and info.rows for known, info in self.splits.items())

    def split(self, name: str) -> SplitInfo:
        """Raises ManifestError for a split that has no sequences."""
        for known, info in self.splits.items():
            if known == name and info.rows:
                return info
        filled = [known for known, info in self.splits.items() if info.rows]
        raise ManifestError(f"the data has no split {name!r}, only {', '.join(filled)}")


def require_alike(manifests: Mapping[str, Manifest]) -> None:
    """Raises ManifestError where sequences of one folder cannot stand in a batch with those of another."""
    (first, known), *others = manifests.items()
    for folder, manifest in others:
        for key in ("tokenizer_digest", "max_length", "packing"):
            if (own := getattr(manifest, key)) != (wanted := getattr(known, key)):
                raise ManifestError(
                    f"{folder}: {key}={str(own)[:12]} differs from {str(wanted)[:12]} of {first}: build one of them "
                    "again, with the tokenizer, max_length and packing of the other"
                )


def read_head(path: Path) -> _Head1 | _Head2:
    """The content of a ``manifest.json``. Raises ManifestError."""
    try:
        return _HEAD.validate_json(path.read_bytes())
    except FileNotFoundError:
        missing = f"no data at {path.parent}: {MANIFEST_FILE} is missing"
        if (path.parent / MIXTURE_FILE).exists():
            raise ManifestError(f"{missing}; it holds a mixture: give one of the folders in it") from None
        raise ManifestError(f"{missing}; run dualmask data build") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"][1:])  # the first is the format
        raise _damaged(path, f"{key}: {problem['msg']}") from None


def _about(head: _About) -> dict[str, Any]:
    return {name: getattr(head, name) for name in _About.model_fields}


def _split_infos(folder: Path, head: _Head2) -> dict[Split, SplitInfo]:
    path = folder / SHARDS_FILE
    try:
        shards = map_table(path, head.tables.shards, SHARD_COLUMNS)
        path = folder / MEMBERS_FILE
        members = map_table(path, head.tables.members, MEMBER_COLUMNS)
        parts = dict(parted({name: info.shards for name, info in head.splits.items()}, shards, members))
    except FileNotFoundError:
        raise _damaged(path, "missing") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from None
    return {
        name: SplitInfo(**info.model_dump(exclude={"shards"}), shards=parts[name]) for name, info in head.splits.items()
    }


def _damaged(path: Path, problem: str) -> ManifestError:
    return ManifestError(f"{path} is damaged ({problem}); run dualmask data build again")
