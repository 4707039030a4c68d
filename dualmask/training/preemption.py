"""The wish of a scheduler, or of a person, that the run should stop soon."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: start me again and I go on


class StopRequest:
    """Notes SIGTERM and SIGUSR1 instead of dying of them; the trainer looks at ``wanted`` between two steps.

    The command ``deepspeed`` dies of SIGTERM without a word to those it started: its end is such a wish, too.
    """

    def __init__(self) -> None:
        self._asked = False
        self._command = _deepspeed_command()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    @property
    def wanted(self) -> bool:
        return self._asked or (self._command is not None and self._command != _deepspeed_command())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _deepspeed_command() -> int | None:
    """Process that was started as ``deepspeed`` and started our launcher; None where others did, or it is gone."""
    try:
        launcher, command = os.getppid(), _parent(os.getppid())
        ours = "deepspeed.launcher.launch" in _words(launcher) and any(
            Path(word).name == "deepspeed" for word in _words(command)[:2]
        )
    except OSError:  # a process that has just ended, or a system without /proc
        return None
    return command if ours else None


def _parent(process: int) -> int:
    """Field 4 of /proc/PID/stat; field 2, in brackets, may hold anything."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _words(process: int) -> list[str]:
    """Its command line."""
    return os.fsdecode(Path(f"/proc/{process}/cmdline").read_bytes()).split("\0")
