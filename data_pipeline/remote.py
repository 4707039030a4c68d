"""Data folders in object stores: what is read of them is fetched once, checked against its digest, and kept on this
machine in a cache of bounded size. Order and resume are those of a local folder.

All processes of a machine share the cache; locks on files see to it that one of them fetches what all need.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, NamedTuple

import fsspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    wait_exponential_jitter,
)

from data_pipeline.files import sha256
from data_pipeline.manifest import (
    MANIFEST_FILE,
    MEMBERS_FILE,
    SHARDS_FILE,
    TOKENIZER_FILE,
    Manifest,
    ManifestError,
    read_head,
)
from data_pipeline.opening import may_pass
from dualmask.config.address import is_address, local_folder

ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 8, 0.5, 30.0  # seconds: about two minutes until a store counts as unreachable
WRONG_ATTEMPTS = 3
SILENCE = 60.0  # seconds without a byte until a request is given up
_AHEAD = 4  # shards that are fetched at once before they are needed
_LOCKS = 64
DEFAULT_CACHE = 20 * 10**9  # bytes


class FileLost(OSError):
    """The store answers, but has not got the file, or none with the digest of the manifest."""


class UnreachableError(ManifestError):
    """The store does not answer. The message is one line."""


class Wanted(NamedTuple):
    """A file of the store as the manifest knows it."""

    name: str
    size: int
    digest: str


class Remote:
    """The data folder at ``address``, and its part of this machine's cache, of which ``cache_bytes`` may be shards."""

    def __init__(self, address: str, cache_bytes: int = DEFAULT_CACHE) -> None:
        """Raises ManifestError where nothing can be read from such an address."""
        self.address, self.folder, self._cache_bytes = address.rstrip("/"), local_folder(address), cache_bytes
        try:
            self._store, self._root = fsspec.core.url_to_fs(self.address, **_options(address))
            self.folder.mkdir(parents=True, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise ManifestError(f"{address}: {str(error).partition(chr(10))[0]}") from None
        except OSError as error:
            raise ManifestError(
                f"{address}: its cache {self.folder} cannot be written to ({error.strerror}): set XDG_CACHE_HOME"
            ) from None
        self._lost: dict[str, str] = {}
        self._ahead: ThreadPoolExecutor | None = None
        self._closed = Event()

    def fetch_head(self) -> Path:
        """The folder that holds manifest, tables and tokenizer as they are in the store now. Raises ManifestError."""
        with self._locked("head"):
            try:
                self._fetch(MANIFEST_FILE, None, self.folder / MANIFEST_FILE)
                head = read_head(self.folder / MANIFEST_FILE)
                wanted = {TOKENIZER_FILE: head.tokenizer_digest}
                if head.format == 2:
                    wanted |= {SHARDS_FILE: head.tables.shards, MEMBERS_FILE: head.tables.members}
                for name, digest in wanted.items():
                    if not (self.folder / name).is_file() or sha256(self.folder / name) != digest:
                        self._fetch(name, digest, self.folder / name, optional=name == TOKENIZER_FILE)
            except FileLost as error:
                raise ManifestError(f"no data at {self.address}: {error}; run dualmask data build") from None
        return self.folder

    def fetch_file(self, name: str) -> None:
        """A file beside the shards that no digest is known of, such as the held-out texts, if there is one."""
        with self._locked("head"):
            self._fetch(name, None, self.folder / name, optional=True)

    def open(self, wanted: Wanted) -> BinaryIO:
        """The shard, from the cache. Raises FileLost or UnreachableError."""
        path = self._path(wanted)
        self._closed.clear()
        while True:
            self._ensure(wanted)
            with suppress(FileNotFoundError):  # another process has just made room
                os.utime(path)
                return path.open("rb")

    def expect(self, shards: Sequence[Wanted]) -> None:
        """Begins to fetch what will be read soon, as far as it fits into half of the cache."""
        self._closed.clear()
        self._ahead = self._ahead or ThreadPoolExecutor(_AHEAD, "fetch")
        room = self._cache_bytes // 2
        for wanted in shards:
            room -= wanted.size
            if room < 0:
                break
            self._ahead.submit(self._ensure, wanted)  # who needs it meets its error

    def close(self) -> None:
        """Ends what is being fetched ahead."""
        self._closed.set()
        if self._ahead is not None:
            self._ahead.shutdown(wait=False, cancel_futures=True)
            self._ahead = None

    def _path(self, wanted: Wanted) -> Path:
        return self.folder / f"{wanted.digest}.tar"  # which also says whether it is that of today's manifest

    def _ensure(self, wanted: Wanted) -> None:
        if self._has(wanted):
            return
        with self._locked(wanted.digest):
            if self._has(wanted):  # by now
                return
            try:
                self._fetch(wanted.name, wanted.digest, self._path(wanted), size=wanted.size)
            except FileLost as error:
                self._lost[wanted.name] = str(error)
                raise

    def _has(self, wanted: Wanted) -> bool:
        if wanted.name in self._lost:
            raise FileLost(self._lost[wanted.name])
        path = self._path(wanted)
        return path.is_file() and path.stat().st_size == wanted.size

    def _make_room(self, size: int) -> None:
        """Removes the shards that were used longest ago. Who has one of them open can still read it."""
        known = [(path.stat(), path) for path in self.folder.glob("*.tar")]
        total = size + sum(stat.st_size for stat, _ in known)
        for stat, path in sorted(known, key=lambda entry: entry[0].st_mtime_ns):
            if total <= self._cache_bytes:
                break
            path.unlink()
            total -= stat.st_size

    def _keep(self, partial: Path, target: Path, size: int) -> None:
        """Makes the fetched file one of the cache, which stays within its bound."""
        with self._locked("room"):
            self._make_room(size)
            partial.replace(target)

    def _fetch(
        self, name: str, digest: str | None, target: Path, *, optional: bool = False, size: int | None = None
    ) -> None:
        """Raises FileLost or UnreachableError. ``optional``: it may be missing. ``size``: of a shard, bytes."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        again = Retrying(
            stop=lambda state: _enough(state) or self._closed.is_set(),
            sleep=sleep_using_event(self._closed),
            wait=wait_exponential_jitter(FIRST_WAIT, LONGEST_WAIT),
            retry=retry_if_exception(may_pass),
            reraise=True,
        )
        try:
            again(self._fetch_once, name, digest, partial)
            if size is None:
                partial.replace(target)
            else:
                self._keep(partial, target, size)
        except FileLost:
            raise
        except Exception as error:  # of any client library: there is no common class
            if isinstance(error, FileNotFoundError) and not may_pass(error):
                target.unlink(missing_ok=True)
                if optional:
                    return
                raise FileLost(f"{self.address}/{name} is missing") from None
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UnreachableError(
                f"{self.address}/{name} cannot be fetched ({reason}): start again when the store answers"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    def _fetch_once(self, name: str, digest: str | None, partial: Path) -> None:
        self._store.get_file(f"{self._root}/{name}", str(partial))
        if digest is not None and (own := sha256(partial)) != digest:
            raise FileLost(f"SHA-256 of {self.address}/{name} is {own[:12]}…, not the manifest's {digest[:12]}…")

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process and thread at a time; names share a few locks."""
        number = name if len(name) < 8 else f"{int(name, 16) % _LOCKS:02d}"
        with (self.folder / f".{number}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _enough(state: RetryCallState) -> bool:
    """A whole file of another content is asked for less often than one that does not come."""
    error = state.outcome.exception() if state.outcome else None
    return state.attempt_number >= (WRONG_ATTEMPTS if isinstance(error, FileLost) else ATTEMPTS)


def local_file(folder: str | Path, name: str) -> Path:
    """The file ``name`` of a folder or an address on this machine, where it may be missing."""
    if is_address(folder):
        Remote(str(folder)).fetch_file(name)
    return local_folder(folder) / name


def load_manifest(folder: str | Path) -> Manifest:
    """Of a folder or an address. Raises ManifestError."""
    return Manifest.load(Remote(str(folder)).fetch_head() if is_address(folder) else folder)


def _options(address: str) -> dict[str, Any]:
    if not address.startswith(("http://", "https://")):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
