"""Arms of a comparison in speed, each in a process of its own, that take their steps in turns.

An arm is a function that trains on the batches it is handed; what it does between two batches is timed. So a trainer
that owns its loop is measured as it is, and no arm feels what another one's libraries have patched or cached.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Seconds:
    wall: float  # on CUDA: between two events of the device
    cpu: float  # of all threads of the process: does not grow while others use the cores


class Stopwatch:
    def __init__(self) -> None:
        self._events = None
        if torch.cuda.is_available():
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            self._events[0].record()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> Seconds:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        if self._events is not None:
            self._events[1].record()
            torch.cuda.synchronize()
            wall = self._events[0].elapsed_time(self._events[1]) / 1000
        return Seconds(wall, cpu)


@dataclass(frozen=True)
class Arm(Generic[Item]):
    """``train(items)`` consumes what ``make(turn)`` gives, one item a turn. Both must be importable."""

    train: Callable[[Iterator[Item]], None]
    make: Callable[[int], Item]
    ranks: int = 1  # processes, which find each other as under a launcher


class _Player:
    """An arm's processes, seen from the outside."""

    def __init__(self, name: str, arm: Arm) -> None:
        context = get_context("spawn")
        self.name, port = name, _free_port()
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for rank in range(arm.ranks):
            ours, theirs = context.Pipe()
            process = context.Process(target=_play, args=(arm, theirs, rank, port), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def turn(self, number: int) -> Seconds:
        """Of the slowest rank."""
        try:
            for pipe in self._pipes:
                pipe.send(number)
            taken = [pipe.recv() for pipe in self._pipes]
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise RuntimeError(f"arm {self.name} ended by itself; what it said stands above") from None
        return Seconds(max(each.wall for each in taken), max(each.cpu for each in taken))

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()


def _play(arm: Arm[Item], pipe: Connection, rank: int, port: int) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": arm.ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()}, GLOO_SOCKET_IFNAME="lo")
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    else:
        os.environ.update(DS_ACCELERATOR="cpu", LOCAL_SIZE=str(arm.ranks))
        torch.set_num_threads(1)

    def items() -> Iterator[Item]:
        try:
            while True:
                item = arm.make(pipe.recv())
                watch = Stopwatch()
                yield item
                pipe.send(watch.read())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return

    arm.train(items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def take_turns(arms: Mapping[str, Arm], repeats: int, *, warm_up: int = 2) -> dict[str, list[Seconds]]:
    """Every arm's time of each turn; the arms follow one another within a turn, so that ratios are of the same moment.

    Raises RuntimeError, with the arm's name, if one ends by itself.
    """
    found: dict[str, list[Seconds]] = {name: [] for name in arms}
    with ExitStack() as stack:
        players = [_Player(name, arm) for name, arm in arms.items()]
        for player in players:
            stack.callback(player.close)
        for number in range(warm_up + repeats):
            for player in players if number % 2 else reversed(players):
                taken = player.turn(number)
                if number >= warm_up:
                    found[player.name].append(taken)
    return found


def load() -> float:
    """Processes that want a core, over the last minute and over the cores: above 1 they wait for one another."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
