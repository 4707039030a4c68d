"""``manifest.json``: the content of a data folder, with each shard's digest; written after everything else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipeline.files import write_atomically

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"
SPLITS = ("train", "dev", "test")

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestError(ValueError):
    """The data folder cannot be used. The message is one line that names the file and the remedy."""


class Member(NamedTuple):
    """One block of sequences inside a shard."""

    offset: Count  # of its tar header in the shard file, bytes
    bytes: Count  # of its .npy content
    crc32: Count  # of its .npy content
    rows: Count


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardInfo(_Record):
    file: Annotated[str, Field(pattern=r"^(train|dev|test)-\d{6,}\.tar$")]  # a bare name: never leads out of the folder
    bytes: Count
    sha256: Digest
    members: tuple[Member, ...]

    @property
    def rows(self) -> int:
        return sum(member.rows for member in self.members)


class SplitInfo(_Record):
    documents: Count
    tokens: Count = Field(description="tokens in rows, BOS and EOS excluded")
    rows: Count
    shards: tuple[ShardInfo, ...]


class Manifest(_Record):
    format: Literal[1] = 1
    source: str
    tokenizer: str = Field("", description="where the tokenizer comes from")
    config_digest: Digest
    tokenizer_digest: Digest
    vocab_size: Count
    max_length: Count
    packing: Literal["stream", "documents"] = Field("stream", description="documents: train rows hold several texts")
    dtype: Literal["uint16", "uint32"]
    splits: dict[Literal["train", "dev", "test"], SplitInfo]

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Raises ManifestError."""
        path = Path(folder) / MANIFEST_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ManifestError(f"no data at {folder}: {MANIFEST_FILE} is missing; run dualmask data build") from None
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(map(str, problem["loc"]))
            raise ManifestError(f"{path} is damaged ({key}: {problem['msg']}); run dualmask data build again") from None

    def save(self, folder: Path) -> None:
        text = json.dumps(self.model_dump(mode="json"), indent=1)
        text = re.sub(
            r"\[\s+((?:\d+,?\s+)+)\]", lambda match: f"[{' '.join(match[1].split())}]", text
        )  # one line per member
        write_atomically(folder / MANIFEST_FILE, text.encode() + b"\n")

    def split(self, name: str) -> SplitInfo:
        """Raises ManifestError for a split that has no sequences."""
        for known, info in self.splits.items():
            if known == name and info.rows:
                return info
        filled = [known for known, info in self.splits.items() if info.rows]
        raise ManifestError(f"the data has no split {name!r}, only {', '.join(filled)}")
