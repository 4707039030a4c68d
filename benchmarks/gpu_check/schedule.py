"""Sections one after the other, each a child process with a limit of its own: whatever becomes of one, the next begins.

A child imports its libraries while the section before it still measures, says that it is ready, and waits for the line
that holds its limit, in seconds. Until then it takes nothing of the card, and its time does not run.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PASSED, LATE, FAILED = 0, 3, 4  # exit codes of a section; any other: it crashed
START_SECONDS = 120.0  # for its imports, which may come from a slow disk
SOFT = 0.8  # share of its limit after which a section begins nothing new


@dataclass(frozen=True)
class Section:
    name: str
    share: float  # of the time, relative to that of the others
    title: str


@dataclass(frozen=True)
class Outcome:
    section: Section
    status: str  # passed, failed, out of time, crashed
    seconds: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


class Child:
    """A section's process and all that it starts: a session of its own, so that nothing of it is left behind."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """command: closes its standard output when it is ready, and prints to its standard error."""
        with log.open("w", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )

    def wait_until_ready(self, seconds: float) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            selector.select(seconds)

    def run(self, limit: float) -> int | None:
        """Exit code; None: it was killed at its limit."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended while it imported
            self._process.stdin.write(f"{limit * SOFT}\n".encode())
            self._process.stdin.flush()
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


def limit_of(number: int, sections: Sequence[Section], seconds: float) -> float:
    """Of section ``number``, of the ``seconds`` that are left for it and all behind it: what one does not need goes to
    the next ones."""
    rest = sections[number:]
    return max(seconds, 0.0) * sections[number].share / sum(section.share for section in rest)


def run_sections(
    sections: Sequence[Section],
    command: Callable[[str], Sequence[str]],
    *,
    seconds: float,
    out: Path,
    environment: Mapping[str, str],
) -> Iterator[Outcome]:
    """``command``: of the section with this name. Each writes what it prints to ``out/NAME.log``."""
    end = time.monotonic() + seconds
    children: list[Child] = []

    def start(number: int) -> None:
        if number < len(sections):
            name = sections[number].name
            children.append(Child(command(name), out / f"{name}.log", environment))

    start(0)
    try:
        for number, section in enumerate(sections):
            start(number + 1)
            children[number].wait_until_ready(min(START_SECONDS, max(end - time.monotonic(), 0.0)))
            began = time.monotonic()
            limit = limit_of(number, sections, end - began)
            code = children[number].run(limit)
            yield _outcome(section, code, limit, time.monotonic() - began)
    finally:
        for child in children:
            child.kill()


def _outcome(section: Section, code: int | None, limit: float, seconds: float) -> Outcome:
    if code is None:
        return Outcome(section, "out of time", seconds, f"killed after its {limit:.0f} s; what it had measured is kept")
    if code == LATE:
        return Outcome(section, "out of time", seconds, f"stopped by itself near its {limit:.0f} s")
    status = {PASSED: "passed", FAILED: "failed"}.get(code, "crashed")
    detail = {"failed": "something is not as it must be", "crashed": f"exit code {code}: see {section.name}.log"}
    return Outcome(section, status, seconds, detail.get(status, ""))
