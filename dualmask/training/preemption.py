"""Requests of a scheduler or a person to stop the run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: the run resumes when it is started again


class StopRequest:
    """Records SIGTERM and SIGUSR1, which then do not end the process; the trainer reads ``wanted`` between two steps.

    The command ``deepspeed`` ends at SIGTERM without telling the processes that it started: its end counts as a
    request, too.
    """

    def __init__(self) -> None:
        self._requested = False
        self._command = _deepspeed_command()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    @property
    def wanted(self) -> bool:
        return self._requested or (self._command is not None and self._command != _deepspeed_command())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True


def _deepspeed_command() -> int | None:
    """The process of the command ``deepspeed`` that started our launcher; None if there is none, or no longer."""
    try:
        launcher, command = os.getppid(), _parent(os.getppid())
        is_deepspeed = "deepspeed.launcher.launch" in _words(launcher) and any(
            Path(word).name == "deepspeed" for word in _words(command)[:2]
        )
    except OSError:  # the process has just ended, or the system has no /proc
        return None
    return command if is_deepspeed else None


def _parent(process: int) -> int:
    """Field 4 of /proc/PID/stat; field 2, in brackets, may hold anything."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _words(process: int) -> list[str]:
    """The process's command line."""
    return os.fsdecode(Path(f"/proc/{process}/cmdline").read_bytes()).split("\0")
