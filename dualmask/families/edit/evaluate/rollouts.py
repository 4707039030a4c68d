"""Texts run through all rounds once; what fewer rounds, or an earlier stop, would have given is read off the traces.

Without randomness a round depends on the draft alone, so a run of R rounds begins with the run of r < R rounds, a text
with nothing left to do stays as it is, and one that was seen before goes on in its circle. See ``draft``.
"""

# N texts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Mode, Request, Result

Ids = Sequence[int]


@dataclass(frozen=True)
class Rollout:
    """One text's drafts: first the text itself, then behind each round; without BOS and EOS."""

    result: Result
    drafts: list[list[int]]

    @property
    def gate(self) -> float:
        """The Gate's probability of editing, before the first round."""
        return self.result.rounds[0].gate

    @property
    def rounds_run(self) -> int:
        return len(self.drafts) - 1

    def turn(self, rounds: int) -> int:
        """Which of the drafts, and of the rounds that led to them, stands behind ``rounds`` rounds, though the text may
        have stopped before: one that came back goes round in its circle."""
        if rounds <= self.rounds_run:
            return rounds
        first = self.drafts.index(self.drafts[-1])
        return first + 1 + (rounds - first - 1) % (self.rounds_run - first)

    def draft(self, rounds: int) -> list[int]:
        """What ``rounds`` rounds make of the text."""
        return self.drafts[self.turn(rounds)]


def roll_out(engine: Engine, drafts: Sequence[Ids], mode: Mode, rounds: int, **options: Any) -> list[Rollout]:
    """Runs every text until ``rounds`` rounds are over or it has nothing left to do."""
    results = engine.run([Request(list(ids), mode, rounds=rounds, **options) for ids in drafts])
    return [
        Rollout(result, [list(result.request.ids), *(done.result[1:-1] for done in result.rounds)])
        for result in results
    ]
