"""Where data lies: a local folder, or an address of an object store (``https://…``, ``s3://…``) with a cache on this
machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path


def is_address(path: str | Path) -> bool:
    return "://" in str(path)


def local_folder(path: str | Path) -> Path:
    """The folder itself; of an address, the folder of the cache that holds what has been fetched from it."""
    if not is_address(path):
        return Path(path)
    name = hashlib.sha256(str(path).rstrip("/").encode()).hexdigest()[:16]
    return user_cache() / "data" / name


@cache
def user_cache() -> Path:
    """This user's cache; a folder for temporary files where the home cannot be written to. Raises OSError."""
    try:
        chosen = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualmask"
        chosen.mkdir(parents=True, exist_ok=True)
        if os.access(chosen, os.W_OK):
            return chosen
    except (OSError, RuntimeError):  # no home at all
        pass
    chosen = Path(tempfile.gettempdir()) / f"dualmask-{os.getuid()}"
    chosen.mkdir(mode=0o700, exist_ok=True)
    if chosen.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{chosen} belongs to another user: set XDG_CACHE_HOME to a folder that can be written to"
        )
    return chosen
