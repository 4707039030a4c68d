"""Starts ranks: processes on this machine that find each other, in the two ways that measurements need.

``result_of`` runs a function once under torchrun, as a training may be started. ``Ranks`` are processes that are asked
for one step after another, so that the steps of several arms can be interleaved. A failed rank ends the others.
Memory is measured under torchrun. Its peak varies from run to run; under multiprocessing that of one tensor-parallel
shape was mostly lower, for a reason that is not known.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)  # what a pipe raises whose other end is gone


class Ranks:
    """``ranks`` processes, each of which runs ``work(pipe)``. Both must be importable. A context manager.

    Each is a fresh interpreter with one thread on the CPU, or with a GPU of its own. ``name`` stands in error messages.
    """

    def __init__(self, name: str, work: Callable[[Connection], None], ranks: int = 1, *, cpu: bool = False) -> None:
        """cpu: on the CPU, whatever else there is."""
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
        """Again without effect."""
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

    def receive(self) -> list[Any]:
        """The next message of every rank. Raises RuntimeError if one ends."""
        messages: dict[Connection, Any] = {}
        with self._ends_named():
            while silent := [pipe for pipe in self._pipes if pipe not in messages]:
                for pipe in wait(silent):
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
    """What ``function`` returns on rank 0, run on ``ranks`` ranks together. It must be importable.

    Raises RuntimeError, with the end of the log, where one fails, or where they need more than ``timeout`` seconds.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if cpu or not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        job, answer, log = (Path(folder, file) for file in ("job", "answer", "log"))
        job.write_bytes(pickle.dumps(function))
        command = [sys.executable, *launcher, "-m", "benchmarks.ranks", str(job), str(answer)]
        with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run:
            try:
                code = run.wait(timeout)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{name} gave no answer in {timeout} s") from None
            finally:
                run.terminate()  # torchrun then ends its ranks
        if code:
            raise RuntimeError(f"{name} failed:\n{log.read_text()[-3000:]}")
        result: Result = pickle.loads(answer.read_bytes())
    return result


def _run_job(job: Path, answer: Path) -> None:
    """On each rank of ``result_of``."""
    torch.set_num_threads(1)
    result = pickle.loads(job.read_bytes())()
    if int(os.environ.get("RANK", "0")) == 0:
        answer.write_bytes(pickle.dumps(result))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _begin(work: Callable[[Connection], None], pipe: Connection, rank: int, cuda: bool) -> None:
    if not cuda:
        torch.set_num_threads(1)
    elif rank:  # the first one's is the default: it takes nothing of the card before it works
        torch.cuda.set_device(rank)
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
        variables |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "LOCAL_SIZE": ranks, "OMP_NUM_THREADS": 1}
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


if __name__ == "__main__":
    _run_job(Path(sys.argv[1]), Path(sys.argv[2]))
