"""How many tokens a round deletes and how many masks it opens: whole numbers for one request (method.md §1, R1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dualmask.families.edit.config import StopConfig
from dualmask.families.edit.infer.request import FORCED_GATE, Request

TEXT = 0  # the one region of an edit or a generation; the holes of an infill are regions 1, 2, …


@dataclass
class Budget:
    """The accounts of one request over its rounds. Growth is counted per region: a set of gaps with one total.

    deletable  tokens of the text that may be deleted before the first round
    room       growth that the inserter's counts may reach where the caller set no bound
    """

    request: Request
    deletable: int
    room: int
    round: int = 0
    grown: dict[int, int] = field(default_factory=dict)

    def requested_growth(self, region: int) -> int | None:
        """The growth that the caller requested in all; None: the inserter decides."""
        if self.request.mode == "infill":
            return self.request.holes[region - 1].tokens
        return self.request.growth

    @property
    def regions(self) -> range:
        return range(1, len(self.request.holes) + 1) if self.request.mode == "infill" else range(TEXT, TEXT + 1)

    @property
    def over(self) -> bool:
        """The requested rounds are over; what follows only mends the length."""
        return self.round >= self.request.rounds

    @property
    def gate(self) -> float | None:
        """The decision forced on this round; None: the Gate decides."""
        if self.request.mode == "auto" and self.over:
            return 0.0
        return FORCED_GATE.get(self.request.mode)

    @property
    def stop(self) -> StopConfig:
        """What may end the rounds early beside having nothing to do. Nothing else does while a length is pending."""
        if self.pending:
            return StopConfig()
        return StopConfig(confidence=self.request.stop_confidence, edit_distance=self.request.stop_distance)

    @property
    def opens(self) -> bool:
        """Masks may be opened at all: not in a summary, nor where nothing is there to edit."""
        request = self.request
        if request.mode == "edit":
            return bool(request.ids) or request.growth is not None
        return request.mode != "summarize"

    @property
    def pending(self) -> bool:
        """A requested length is not reached yet."""
        if self.request.mode == "summarize":
            return not self.over
        requested = ((region, self.requested_growth(region)) for region in self.regions)
        return self.opens and any(n is not None and n != self.grown.get(region, 0) for region, n in requested)

    def due(self, region: int) -> int | None:
        """Requested growth of this round: the schedule's share of it, less what has grown, so that no gap's limit makes
        the text shorter for good. None: the inserter decides."""
        requested = self.requested_growth(region)
        if requested is None:
            return None
        share = min((self.round + 1) / self.request.rounds, 1.0)
        if self.request.growth_schedule == "cosine":
            share = 1 - math.cos(share * math.pi / 2)
        due_by_now = math.ceil(abs(requested) * share - 1e-6)  # rounded away from zero
        return int(math.copysign(due_by_now, requested)) - self.grown.get(region, 0)

    def deletions(self, deletable: int) -> int | None:
        """Tokens to delete among ``deletable`` ones, should the round edit. None: those that are wrong, be they many or
        few. Rounds beyond the requested ones only mend the length; a summary comes to its keep rate step by step."""
        request = self.request
        if self.gate == 0:
            return 0
        if request.mode == "summarize":
            assert request.keep_rate is not None  # no such request exists
            target = round(self.deletable * request.keep_rate ** ((self.round + 1) / request.rounds))
            return max(deletable - target, 0)
        if self.over:
            return min(max(-(self.due(TEXT) or 0), 0), deletable)
        if request.mode == "auto" or request.keep_rate is None:
            return None
        return round((1 - request.keep_rate) * deletable)

    def masks(self, region: int, deleted: int, likely: int, rate: float) -> int:
        """Masks to open in a region. ``likely``: sum of its gaps' most likely counts, ``rate``: of the mean counts."""
        request = self.request
        due = self.due(region)
        if due is not None:
            return max(deleted + due, 0)
        expected = round(rate) if request.mode == "generate" else likely
        least = 1 if request.mode == "infill" and not self.grown.get(region) else 0
        room = self.room if request.max_growth is None else request.max_growth
        return max(least, min(expected, deleted + room - self.grown.get(region, 0)))

    def close_round(self, deleted: int, opened: dict[int, int]) -> None:
        for region in self.regions:
            self.grown[region] = self.grown.get(region, 0) + opened.get(region, 0) - deleted
        self.round += 1


def natural_room(request: Request, max_length: int, max_gap_count: int) -> int:
    """How far a text grows where the inserter decides and the caller set no bound.

    An edit at most doubles it, a generation ends where the model's longest text does, a hole takes what one gap takes.
    """
    if request.mode == "infill":
        return max_gap_count
    written = max(max_length - 2 - len(request.ids), max_gap_count)
    edited = max(len(request.ids), max_gap_count)
    return {"generate": written, "auto": max(written, edited)}.get(request.mode, edited)
