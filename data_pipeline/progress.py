"""Progress of one stage: a bar on a terminal, nothing elsewhere (logs get one line per stage)."""

from __future__ import annotations

from typing import Self

from tqdm import tqdm


class ProgressBar:
    def __init__(self, name: str, total: int) -> None:
        self._bar = tqdm(total=total, desc=f"{name:>10}", disable=None, leave=False)

    def advance_to(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
