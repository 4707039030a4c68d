"""The wish of a scheduler, or of a person, that the run should stop soon."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: start me again and I go on


class StopRequest:
    """Notes SIGTERM and SIGUSR1 instead of dying of them; the trainer looks at ``wanted`` between two steps."""

    def __init__(self) -> None:
        self.wanted = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
