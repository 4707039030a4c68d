"""Which files the paths of a source name: local files, folders and globs, or addresses of any fsspec file system.

One rule for all of them. A file given by its name is read, or refused by its name. In folders and globs, files of other
kinds, hidden ones (a name on the way begins with a dot) and those in the build's own output are left out; symbolic
links are followed, each file is read once, under its own name if it has one there. What was left out is counted.
"""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from data_pipeline.opening import base_name, retried
from dualmask.config.address import is_address

_LOCAL_PREFIX = "file://"

Named = tuple[str, str]  # name that does not change when all files are moved, path


class ListingError(ValueError):
    """A path names nothing that can be read. The message is one line without the key."""


@dataclass
class Listing:
    """The files of the paths that ``add`` was called with, sorted by name within each path."""

    suffixes: tuple[str, ...]
    output: Path | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)

    def add(self, path: str) -> list[Named]:
        """The files of ``path`` that no earlier path named. Raises ListingError."""
        path = path.removeprefix(_LOCAL_PREFIX)
        try:
            files, by_name = self._remote(path) if is_address(path) else _local(path)
            fitting = [file for file in sorted(files, key=_links_last) if self._fits(file[1], by_name)]
        except ListingError:
            raise
        except Exception as error:  # every file system has errors of its own
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            raise ListingError(f"{getattr(error, 'filename', None) or path}: cannot be listed: {reason}") from None
        if not fitting:
            raise ListingError(f"{path!r} matches no {self._kinds} file{f' ({self.said})' if self.left_out else ''}")
        return sorted(file for file in fitting if self._is_new(file[1]))

    def inside(self, root: Path, pattern: str) -> list[Named]:
        """The files in ``root`` that match a glob; there, files of equal content may be links to one."""
        names = [name for name in glob.glob(pattern, root_dir=root, recursive=True) if (root / name).is_file()]
        fitting = [name for name in names if self._fits(str(root / name), by_name=not glob.has_magic(pattern))]
        if not fitting:
            raise ListingError(f"{pattern!r} matches no {self._kinds} file")
        return [(name, str(root / name)) for name in sorted(fitting)]

    @property
    def said(self) -> str:
        """What was left out, in words."""
        return "left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))

    @property
    def _kinds(self) -> str:
        return " or ".join(self.suffixes)

    def _fits(self, path: str, by_name: bool) -> bool:
        reason = self._reason(path)
        if reason and by_name:
            raise ListingError(f"{path}: {reason}: name another file, or choose the kind that it is of")
        if reason:
            self.left_out[reason] += 1
        return not reason

    def _is_new(self, path: str) -> bool:
        real = _real(path)
        new = real not in self._seen
        self._seen.add(real)
        return new

    def _remote(self, address: str) -> tuple[list[Named], bool]:
        """As ``_local``. Web servers do not tell files from folders: what has a suffix of the kind is a file."""
        system, path = file_system(address)
        if base_name(path).endswith(self.suffixes) and not glob.has_magic(base_name(path)):
            retried(lambda: system.info(path))
            return [(base_name(path), address)], True
        if glob.has_magic(path):
            shown = [file for file in retried(lambda: system.glob(path)) if not base_name(file).startswith(".")]
            return [(base_name(file), system.unstrip_protocol(file)) for file in shown], False
        if not retried(lambda: system.isdir(path)):
            return [(base_name(path), address)], retried(lambda: system.exists(path))
        root = path.rstrip("/") + "/"
        below = [(file.removeprefix(root), file) for file in retried(lambda: system.find(path))]
        shown = [file for file in below if not any(part.startswith(".") for part in file[0].split("/"))]
        return [(name, system.unstrip_protocol(file)) for name, file in shown], False

    def _reason(self, path: str) -> str:
        """Why a file is not read; empty if it is."""
        if not base_name(path).endswith(self.suffixes):
            return f"not {self._kinds}"
        if not is_address(path) and not os.path.isfile(path):
            return "no regular file"
        if self.output is not None and Path(_real(path)).is_relative_to(os.path.realpath(self.output)):
            return "in the output folder"
        return ""


def _real(path: str) -> str:
    return path if is_address(path) else os.path.realpath(path)


def _links_last(file: Named) -> tuple[bool, str]:
    return not is_address(file[1]) and os.path.islink(file[1]), file[0]


def _local(path: str) -> tuple[list[Named], bool]:
    """The files of ``path``, of any kind; whether it is the name of one."""
    if os.path.isdir(path):
        return [(Path(file).relative_to(path).as_posix(), file) for file in _walk(path)], False
    if os.path.lexists(path):
        return [(os.path.basename(path), path)], True
    return [
        (os.path.basename(file), file) for file in glob.glob(path, recursive=True) if not os.path.isdir(file)
    ], False


def _walk(root: str) -> Iterator[str]:
    """All files below a folder but hidden ones. Each folder once, by its own name before any link to it."""
    seen, folders, links = set[str](), deque([root]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                yield entry.path


def file_system(address: str) -> tuple[Any, str]:
    """The file system of ``address``, and the path in it. Raises ListingError if a package is missing."""
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ListingError(f"{address!r} cannot be opened: {error}") from None
