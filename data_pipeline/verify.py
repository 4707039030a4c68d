"""Verification of a data folder: shards that differ from the manifest are reported, never moved or read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest, ShardInfo


@dataclass(frozen=True)
class BadShard:
    file: str
    reason: str


def verify_shards(
    folder: str | Path, split: str, mode: Literal["digest", "size"] = "digest", part: int = 0, parts: int = 1
) -> list[BadShard]:
    """The bad shards among every ``parts``-th shard of ``split`` from ``part`` on, so that ranks can share the work.

    ``size`` compares sizes, ``digest`` reads every byte. Files named like shards of the split that are not in the
    manifest are reported too (they are never read). Raises ManifestError if there is no manifest.
    """
    folder = Path(folder)
    shards = Manifest.load(folder).split(split).shards
    known = {shard.file for shard in shards}
    foreign = sorted(path.name for path in folder.glob(f"{split}-*.tar") if path.name not in known)
    checked = [
        BadShard(shard.file, reason) for shard in shards[part::parts] if (reason := _reason(folder, shard, mode))
    ]
    return checked + [BadShard(name, "foreign: not in manifest.json, ignored") for name in foreign[part::parts]]


def _reason(folder: Path, shard: ShardInfo, mode: str) -> str | None:
    path = folder / shard.file
    try:
        if (size := path.stat().st_size) != shard.bytes:
            return f"{size} bytes, the manifest says {shard.bytes}"
        if mode == "digest" and sha256(path) != shard.sha256:
            return "SHA-256 differs from the manifest's"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def record_quarantine(file: str | Path, bad: Iterable[BadShard]) -> None:
    """Appends one JSON line ``{"file", "reason"}`` for each shard that is not yet in the list."""
    path = Path(file)
    known = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
    lines = dict.fromkeys(json.dumps(asdict(shard)) for shard in bad)
    with path.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines if line not in known)
