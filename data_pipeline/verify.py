"""Verification of a data folder: shards that differ from the manifest are reported, never moved or read.

What was verified is remembered, with the file's size, times and inode, so that only what has changed since is read
again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from data_pipeline.files import sha256, write_atomically
from data_pipeline.manifest import Manifest
from data_pipeline.tables import Shards
from dualmask.config.address import is_address, user_cache

VERIFIED_FILE = ".verified.json"

Traces = dict[str, list[int | str]]  # file: what its state was when it was verified


@dataclass(frozen=True)
class BadShard:
    file: str
    reason: str


def verify_shards(
    folder: str | Path,
    split: str,
    mode: Literal["digest", "size", "full"] = "digest",
    part: int = 0,
    parts: int = 1,
) -> list[BadShard]:
    """The bad shards among every ``parts``-th shard of ``split`` from ``part`` on, so that ranks can share the work.

    ``size`` compares sizes, ``digest`` reads every byte of what has changed since it was verified, ``full`` of all.
    Files named like shards of the split that are not in the manifest are reported too (they are never read). Shards of
    an object store are verified when they are fetched. Raises ManifestError if there is no manifest.
    """
    if is_address(folder):
        return []
    folder = Path(folder)
    shards = Manifest.load(folder).split(split).shards
    known = {shards.file(number) for number in range(len(shards))}
    foreign = sorted(path.name for path in folder.glob(f"{split}-*.tar") if path.name not in known)
    check = _Check(folder, shards, mode)
    bad = [BadShard(shards.file(number), why) for number in range(part, len(shards), parts) if (why := check(number))]
    remember(folder, check.verified)
    return bad + [BadShard(name, "foreign: not in manifest.json, ignored") for name in foreign[part::parts]]


class _Check:
    """``verified``: traces of the shards whose every byte was read and found right."""

    def __init__(self, folder: Path, shards: Shards, mode: str) -> None:
        self._folder, self._shards, self._mode = folder, shards, mode
        self._remembered = recall(folder) if mode == "digest" else {}
        self.verified: Traces = {}

    def __call__(self, number: int) -> str | None:
        """What is wrong with a shard, if anything is."""
        file = self._shards.file(number)
        path = self._folder / file
        try:
            state, expected = path.stat(), self._shards.size(number)
            if state.st_size != expected:
                return f"{state.st_size} bytes, the manifest says {expected}"
            if self._mode == "size":
                return None
            digest = self._shards.digest(number)
            trace: list[int | str] = [digest, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            if self._remembered.get(file) == trace:
                return None
            if sha256(path) != digest:
                return "SHA-256 differs from the manifest's"
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        self.verified[file] = trace
        return None


def recall(folder: Path) -> Traces:
    """What is remembered of ``folder``; nothing where that cannot be read."""
    for path in _memories(folder):
        try:
            traces = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(traces, dict):
            return traces
    return {}


def remember(folder: Path, verified: Mapping[str, list[int | str]]) -> None:
    """Adds to what is remembered, forgets nothing else. Where no place can be written to, nothing is remembered."""
    if not verified:
        return
    for path in _memories(folder):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("w") as lock:  # of other ranks
                fcntl.flock(lock, fcntl.LOCK_EX)
                write_atomically(path, json.dumps({**recall(folder), **verified}).encode())
            return


def _memories(folder: Path) -> list[Path]:
    """Where is remembered what was verified: in the folder, or else in the user's cache."""
    own = folder / VERIFIED_FILE
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    elsewhere = user_cache() / "verified" / f"{name}.json"
    return [own, elsewhere] if os.access(folder, os.W_OK) else [elsewhere]


def record_quarantine(file: str | Path, bad: Iterable[BadShard]) -> None:
    """Appends one JSON line ``{"file", "reason"}`` for each shard that is not yet in the list."""
    path = Path(file)
    known = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
    lines = dict.fromkeys(json.dumps(asdict(shard)) for shard in bad)
    with path.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines if line not in known)
