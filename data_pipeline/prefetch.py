"""Prefetching: a thread produces a few items ahead of the consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _End:
    """Marks the end of the queue; carries the error that ended the source, if any."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


class Prefetch(Generic[Item]):
    """The items of ``source``, at most ``depth`` of them ahead; an error of the source is raised by ``__next__``."""

    def __init__(self, source: Iterator[Item], depth: int) -> None:
        self._queue: queue.Queue[Item | _End] = queue.Queue(max(depth, 1))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = self._queue.get()
        if isinstance(item, _End):
            self._queue.put(item)  # a further call ends in the same way
            raise item.error or StopIteration
        return item

    def close(self) -> None:
        """Stops the thread and drops the items that it had prepared."""
        self._stopped.set()
        self._thread.join()

    def _run(self, source: Iterator[Item]) -> None:
        error: Exception | None = None
        try:
            for item in source:
                if not self._put(item):
                    return
        except Exception as caught:
            error = caught
        self._put(_End(error))

    def _put(self, item: Item | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
