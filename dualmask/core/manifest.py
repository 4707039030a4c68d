"""Sealed folders: a manifest with the SHA-256 of every file, written last. Also atomic writing of single files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NAME = "manifest.json"
FORMAT = 1


def write_file(path: Path, text: str) -> None:
    """Writes ``path`` atomically: a reader sees either the old text or the new one, even after a crash."""
    partial = path.with_name(f".{path.name}.partial")
    with naming(path), partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file's name to an OSError, which lacks it if a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync(path: Path) -> None:
    """fsync of a file's content, or of the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_of(folder: Path) -> list[str]:
    """Relative names of all files below ``folder`` except the manifest, sorted."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in names if name != NAME)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(folder: Path, digests: Mapping[str, str] | None = None) -> None:
    """Writes the manifest with ``digests`` (None: of every file in the folder) after all files are synced to disk."""
    if digests is None:
        for name in files_of(folder):
            sync(folder / name)
        digests = {name: digest(folder / name) for name in files_of(folder)}
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in sorted(digests)}
    for subfolder in {(folder / name).parent for name in files}:
        sync(subfolder)
    write_file(folder / NAME, json.dumps({"format": FORMAT, "files": files}, indent=1))


def problem(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with a sealed folder, naming the file; None if all files are as they were written.

    Only every ``parts``-th file from ``part`` on is read, so that several processes can share the work.
    """
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        listed = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        if manifest["format"] != FORMAT:
            return f"{NAME} has format {manifest['format']}, this version reads {FORMAT}"
    except FileNotFoundError:
        return f"{NAME} is missing: it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{NAME} is damaged: {' '.join(str(error).split())}"
    present = set(files_of(folder))
    if different := sorted(present ^ listed.keys()):
        return f"{different[0]} is {'foreign' if different[0] in present else 'missing'}"
    for name in sorted(listed)[part::parts]:
        size, expected = listed[name]
        if (folder / name).stat().st_size != size:
            return f"{name} has {(folder / name).stat().st_size} bytes instead of {size}"
        if digest(folder / name) != expected:
            return f"{name} is damaged: its SHA-256 differs"
    return None
