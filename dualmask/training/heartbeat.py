"""Reports which rank a run is waiting for, and ends a process that would wait for ever.

A thread on every rank increments a counter in the store of the rendezvous. The counter of a rank that is stopped or cut
off from the network does not advance. Counters are read only by ranks whose own step does not advance, so a healthy run
pays one small message every few seconds. The thread knows nothing of the training but the number of its step.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from dualmask.training.preemption import EXIT_CODE

GRACE_SECONDS = 5  # after the time-out, so that the waiting collective can end by itself


class Heartbeat:
    """This rank's heartbeat, and its watch over the other ranks; a no-op with one process. Creating it is collective.

    ``timeout_seconds`` is that of the collectives. After three quarters of it, a rank for which others wait and whose
    counter does not advance is named on stderr; a process that still waits ``GRACE_SECONDS`` after the time-out exits
    with code 75.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._interval = min(5.0, timeout_seconds / 20)
        self._step: Callable[[], int] = lambda: 0
        self._closed = threading.Event()
        self._named = False
        self._thread: threading.Thread | None = None
        if dist.get_world_size() > 1:
            self._peers = _Peers(patience=timeout_seconds / 5)
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()

    def follow(self, step: Callable[[], int]) -> None:
        """``step`` returns the number of this rank's current step: while it advances, no rank is missed."""
        self._step = step

    def close(self) -> None:
        """Ends the threads: Python aborts if it exits while a thread uses the store."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._peers.close()

    def _run(self) -> None:
        step, since = -1, time.monotonic()
        while not self._closed.wait(self._interval):
            if self._step() != step:
                step, since, self._named = self._step(), time.monotonic(), False
                self._peers.forget()
            self._peers.beat(step)
            waited = time.monotonic() - since
            if waited > self._timeout / 2:
                self._peers.look()
            if waited > self._timeout * 0.75:
                self._judge(step, waited)

    def _judge(self, step: int, waited: float) -> None:
        silent, speaks = self._peers.silent()
        if not silent:
            return
        names = ", ".join(silent)
        if speaks and not self._named:
            self._named = True
            _say(f"has waited in step {step} for {waited:.0f} s; no sign of life from {names}")
        if waited > self._timeout + GRACE_SECONDS:
            _say(f"exits in step {step} after {waited:.0f} s without {names} (parallel.timeout_seconds)")
            os._exit(EXIT_CODE)


def lost_peers(error: BaseException | None) -> str | None:
    """The message of a lost connection to other ranks that ``error`` or its cause reports; None for any other error."""
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in text):
            return re.sub(r"^\[[^]]*\] ", "", text).split(". This is", 1)[0][
                :300
            ]  # without the source location and the advice
        error = error.__cause__
    return None


class _Peers:
    """The beats of all ranks. A rank whose beat has not changed for ``patience`` seconds is silent."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._rank = dist.get_rank()
        self._hosts: list[str] = [""] * dist.get_world_size()
        self._store = dist.distributed_c10d._get_default_store().clone()
        self._count = 0
        self._looking: threading.Thread | None = None
        self.forget()
        self.beat(0)
        dist.all_gather_object(self._hosts, socket.gethostname())  # after this, every rank's first beat is in the store

    def forget(self) -> None:
        self._request_time: float | None = None  # since when an answer of the store is pending
        self._seen: dict[int, tuple[str, float]] = {}  # by rank: its last beat, and when that was first seen

    def beat(self, step: int) -> None:
        self._count += 1
        try:  # ``set`` does not wait for an answer, so it returns at once even if the store does not answer
            self._store.set(f"beat/{self._rank}", f"{self._count} {step}")
        except RuntimeError:
            return  # the store is gone; ``look`` finds out whether that matters

    def close(self) -> None:
        if self._looking is not None:
            self._looking.join(timeout=1)

    def look(self) -> None:
        """Reads all beats in a thread of its own, because a stopped store neither answers nor refuses."""
        if self._request_time is None:
            self._request_time = time.monotonic()
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._read, name="heartbeat reader", daemon=True)
            self._looking.start()

    def _read(self) -> None:
        try:  # over a connection of its own: a read that never returns would block other users of the connection
            beats = self._store.clone().multi_get([f"beat/{rank}" for rank in range(len(self._hosts))])
        except RuntimeError:
            return
        now = time.monotonic()
        self._request_time = now
        for rank, beat in enumerate(beats):
            if self._seen.get(rank, ("", 0.0))[0] != beat.decode():
                self._seen[rank] = beat.decode(), now

    def silent(self) -> tuple[list[str], bool]:
        """Descriptions of the silent ranks, and whether this rank, the first of the others, must report them."""
        now = time.monotonic()
        if self._request_time is not None and now - self._request_time > self._patience:
            return [self._store_in_words()], True  # without the store no rank knows which others are left
        late = {rank: beat for rank, (beat, new) in self._seen.items() if now - new > self._patience}
        words = [f"rank {rank} on {self._hosts[rank]}, last in step {beat.split()[1]}" for rank, beat in late.items()]
        return words, self._rank == min(self._seen.keys() - late.keys(), default=self._rank)

    def _store_in_words(self) -> str:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return f"torchrun's store on {os.environ.get('MASTER_ADDR')}"
        return f"rank 0 on {self._hosts[0]}, which keeps the store"


def _say(text: str) -> None:
    print(f"rank {dist.get_rank()} on {socket.gethostname()}: {text}", file=sys.stderr, flush=True)
