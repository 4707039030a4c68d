"""One build at a time in an output folder: a lock of the operating system's, which ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK_FILE = "lock"

log = logging.getLogger(__name__)


class LockedError(ValueError):
    """Another build writes into the folder. The message is one line that names its host and process."""


@contextmanager
def held(folder: Path, output: Path, wait: bool = True) -> Iterator[None]:
    """Holds ``folder/lock``, which is told apart by ``output`` in messages; waits for whoever has it.

    Raises LockedError instead of waiting if ``wait`` is false. A folder that cannot be written to needs no lock.
    """
    try:
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        yield
        return
    with file:
        _acquire(file, output, wait)
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        yield


def _acquire(file: TextIO, output: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(file)
        if not wait:
            raise LockedError(
                f"output={output}: {holder} writes there: let it end, build without --no-wait, or choose another output"
            ) from None
        log.info("%s: waiting for %s to end", output, holder)
        fcntl.flock(file, fcntl.LOCK_EX)


def _holder(file: TextIO) -> str:
    try:
        file.seek(0)
        holder = json.loads(file.read())
        return f"the build on {holder['host']}, pid {holder['pid']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not said yet who it is
        return "another build"
