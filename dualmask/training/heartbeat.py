"""Says for which rank a run waits, and ends a wait that would have no end.

Every rank has a thread that counts on, in the store through which the ranks met. Whoever is stopped or cut off from the
network counts no further. Counts are read only by ranks whose own steps stand still: a healthy run pays a small message
every few seconds. Of a training the thread knows nothing but the number of its step.
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

GRACE_SECONDS = 5  # behind the time-out, for the collective that waits to end by itself


class Heartbeat:
    """This rank's beats and its watch over the others; a no-op in a world of one. Making it is collective.

    ``timeout_seconds`` is that of the collectives. A rank that keeps the others waiting without a sign of life is named
    on stderr at three quarters of it; who still waits ``GRACE_SECONDS`` behind it leaves with code 75.
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
        """``step`` gives the number of the step that this rank is in: while it moves, nobody is missed."""
        self._step = step

    def close(self) -> None:
        """Ends the threads: Python aborts where it ends beside one that talks to the store."""
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
        who = ", ".join(silent)
        if speaks and not self._named:
            self._named = True
            _say(f"waits in step {step} since {waited:.0f} s; no sign of life from {who}")
        if waited > self._timeout + GRACE_SECONDS:
            _say(f"leaves step {step} after {waited:.0f} s without {who} (parallel.timeout_seconds)")
            os._exit(EXIT_CODE)


def lost_peers(error: BaseException | None) -> str | None:
    """Why ``error``, or what caused it, is another rank's end and not this one's; None: it is this one's."""
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in text):
            return re.sub(r"^\[[^]]*\] ", "", text).split(". This is", 1)[0][:300]  # neither its source nor its advice
        error = error.__cause__
    return None


class _Peers:
    """The beats of all ranks. Who has shown the same one for ``patience`` seconds is silent."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._rank = dist.get_rank()
        self._hosts: list[str] = [""] * dist.get_world_size()
        self._store = dist.distributed_c10d._get_default_store().clone()
        self._count = 0
        self._looking: threading.Thread | None = None
        self.forget()
        self.beat(0)
        dist.all_gather_object(self._hosts, socket.gethostname())  # from here on everyone's first beat is there

    def forget(self) -> None:
        self._asked: float | None = None  # since when an answer of the store is due
        self._seen: dict[int, tuple[str, float]] = {}  # by rank: its last beat, and when that was new

    def beat(self, step: int) -> None:
        self._count += 1
        try:  # nothing waits for an answer here, so this returns at once even if nobody is there
            self._store.set(f"beat/{self._rank}", f"{self._count} {step}")
        except RuntimeError:
            return  # the store has gone; ``look`` finds out whether that matters

    def close(self) -> None:
        if self._looking is not None:
            self._looking.join(timeout=1)

    def look(self) -> None:
        """Asks for everyone's beats, aside: a stopped store neither answers nor refuses."""
        if self._asked is None:
            self._asked = time.monotonic()
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._read, name="heartbeat reader", daemon=True)
            self._looking.start()

    def _read(self) -> None:
        try:  # over a connection of its own: a read that never returns holds up whoever shares it
            beats = self._store.clone().multi_get([f"beat/{rank}" for rank in range(len(self._hosts))])
        except RuntimeError:
            return
        now = time.monotonic()
        self._asked = now
        for rank, beat in enumerate(beats):
            if self._seen.get(rank, ("", 0.0))[0] != beat.decode():
                self._seen[rank] = beat.decode(), now

    def silent(self) -> tuple[list[str], bool]:
        """Those without a sign of life, in words, and whether it is this rank that says so: the first that is left."""
        now = time.monotonic()
        if self._asked is not None and now - self._asked > self._patience:
            return [self._store_in_words()], True  # nobody can know who else is left
        late = {rank: beat for rank, (beat, new) in self._seen.items() if now - new > self._patience}
        words = [f"rank {rank} on {self._hosts[rank]}, last in step {beat.split()[1]}" for rank, beat in late.items()]
        return words, self._rank == min(self._seen.keys() - late.keys(), default=self._rank)

    def _store_in_words(self) -> str:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return f"torchrun's store on {os.environ.get('MASTER_ADDR')}"
        return f"rank 0 on {self._hosts[0]}, which keeps the store"


def _say(what: str) -> None:
    print(f"rank {dist.get_rank()} on {socket.gethostname()}: {what}", file=sys.stderr, flush=True)
