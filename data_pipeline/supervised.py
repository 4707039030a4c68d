"""Runs a build in a process of its own, so that a signal ends it with everything that Ray has started.

Ray handles signals itself, in more than one way and not always to the end. The process that the user started knows
nothing of Ray: it waits, and when it is told to stop it kills all of its descendants. Nothing is lost by that, as files
are whole or absent and a build goes on where it was.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_WAIT_SECONDS = 5.0
_PRINTED = 70  # exit code of a process that has printed its error; Ray ends one with 1 when it has lost its head


class Stopped(KeyboardInterrupt):
    """SIGTERM or Ctrl-C ended the work; none of its processes is left."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class Died(ValueError):
    """The process ended by itself without a result. The message is one line."""


def run(work: Callable[..., None], *arguments: Any) -> None:
    """``work(*arguments)`` in a new process. Raises what it raises for the user to mend as a ValueError of the same
    line, Stopped, or Died; SystemExit with its code after an error that it has printed itself.
    """
    context = multiprocessing.get_context("spawn")
    result, of_child = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(of_child, os.getpid(), work, arguments))
    with _raised_signals(), _descendants_ended():
        with _interrupts_held():
            process.start()
        of_child.close()
        try:
            message = result.recv_bytes().decode()
        except EOFError:
            process.join()
            raise _ended(process.exitcode or 0) from None
        process.join()
    if message:
        raise ValueError(message)


def _ended(code: int) -> BaseException:
    if code == _PRINTED:
        return SystemExit(1)
    goes_on = "what is finished is kept, the same command goes on"
    if code >= 0:
        return Died(f"the build's process was ended with code {code}, by Ray if that has lost its cluster: {goes_on}")
    name = signal.Signals(-code).name
    return Died(f"the build was killed by {name}: the machine may be out of memory; {goes_on}")


def _in_child(result: Connection, parent: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    try:
        work(*arguments)
    except OSError as error:
        line = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        result.send_bytes(line.encode(errors="replace"))
    except ValueError as error:
        result.send_bytes(str(error).encode(errors="replace"))
    except Exception:
        traceback.print_exc()
        sys.exit(_PRINTED)
    else:
        result.send_bytes(b"")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started within gets none until it ignores them; this one gets them at the end."""
    resource_tracker.ensure_running()  # otherwise the first start does that, and lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _raised_signals() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second one must not disturb the end
        raise Stopped(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _descendants_ended() -> Iterator[None]:
    """Kills at the end what was started within, also what has lost its parent."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        while left := set(me.children(recursive=True)) - before:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(list(left), timeout=_WAIT_SECONDS)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
