"""Starts ranks: processes on this machine that find each other as under a launcher, and what they report.

Every rank is a fresh interpreter with one thread on a CPU, or with a GPU of its own. It runs one function; a failure of
any rank ends all of them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)  # what a pipe raises whose other end is gone


class Ranks:
    """``ranks`` processes, each of which runs ``work(pipe)``. Both must be importable. A context manager.

    ``name`` stands in error messages; ``cpu``: no GPU is used even if there is one.
    """

    def __init__(self, name: str, work: Callable[[Connection], None], ranks: int = 1, *, cpu: bool = False) -> None:
        self.name = name
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context, port = get_context("spawn"), _free_port()
        cuda = torch.cuda.is_available() and not cpu
        for rank in range(ranks):
            near, far = context.Pipe()
            process = context.Process(target=_begin, args=(work, far, rank, cuda), daemon=True)
            # set here, since a rank imports its libraries before it runs anything of ours
            with _environment(_variables(rank, ranks, port, cuda)):
                process.start()
            far.close()
            self._pipes.append(near)
            self._processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if error is None:
                process.join(timeout=30)
            process.kill()
            process.join()

    def send(self, message: object) -> None:
        """The same to every rank. Raises RuntimeError if one has ended."""
        with self._ends_named():
            for pipe in self._pipes:
                pipe.send(message)

    def receive(self, timeout: float | None = None) -> list[Any]:
        """The next message of every rank. Raises RuntimeError if one ends, or is silent for ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        messages: dict[Connection, Any] = {}
        with self._ends_named():
            while silent := [pipe for pipe in self._pipes if pipe not in messages]:
                ready = wait(silent, None if end is None else max(end - time.monotonic(), 0))
                if not ready:
                    raise RuntimeError(f"{self.name}: {len(silent)} ranks gave no answer in {timeout} s")
                for pipe in ready:
                    assert isinstance(pipe, Connection)
                    messages[pipe] = pipe.recv()
        return [messages[pipe] for pipe in self._pipes]

    @contextmanager
    def _ends_named(self) -> Iterator[None]:
        try:
            yield
        except CLOSED:
            raise RuntimeError(f"{self.name} ended by itself; its messages stand above") from None


def result_of(
    name: str, function: Callable[[], Result], ranks: int, *, timeout: float | None = None, cpu: bool = False
) -> Result:
    """What ``function`` returns on rank 0, run on ``ranks`` ranks together. Raises RuntimeError where one fails."""
    with Ranks(name, partial(_report, function), ranks, cpu=cpu) as running:
        result: Result = running.receive(timeout)[0]
    return result


def _report(function: Callable[[], object], pipe: Connection) -> None:
    pipe.send(function())
    with suppress(*CLOSED):  # no rank leaves before all have answered
        pipe.recv()
    if dist.is_initialized():
        dist.destroy_process_group()


def _begin(work: Callable[[Connection], None], pipe: Connection, rank: int, cuda: bool) -> None:
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    work(pipe)


def _variables(rank: int, ranks: int, port: int, cuda: bool) -> dict[str, str]:
    variables: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
    }
    if not cuda:
        variables |= {"DS_ACCELERATOR": "cpu", "LOCAL_SIZE": ranks, "OMP_NUM_THREADS": 1}
    return {name: str(value) for name, value in variables.items()}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process's own environment, which a process that starts meanwhile inherits."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
