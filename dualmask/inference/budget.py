"""How many tokens a round deletes and how many masks it opens: whole numbers for one request (method.md §1, R1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualmask.inference.request import Request

TEXT = 0  # the one region of an edit or a generation; the holes of an infill are regions 1, 2, …


@dataclass
class Budget:
    """The accounts of one request over its rounds. Growth is counted per region: a set of gaps with one total.

    deletable  tokens of the text that may be deleted before the first round
    room       growth that the inserter's own opinion may reach where the caller set no bound
    """

    request: Request
    deletable: int
    room: int
    round: int = 0
    grown: dict[int, int] = field(default_factory=dict)

    def asked(self, region: int) -> int | None:
        """The growth that the caller asked for in all; None: the inserter decides."""
        if self.request.mode == "infill":
            return self.request.holes[region - 1].tokens
        return self.request.growth

    @property
    def regions(self) -> range:
        return range(1, len(self.request.holes) + 1) if self.request.mode == "infill" else range(TEXT, TEXT + 1)

    @property
    def opens(self) -> bool:
        """Masks may be opened at all: not in a summary, nor where nothing is there to edit."""
        request = self.request
        if request.mode == "edit":
            return bool(request.ids) or request.growth is not None
        return request.mode != "summarize"

    @property
    def pending(self) -> bool:
        """An asked length is not reached yet."""
        if self.request.mode == "summarize":
            return self.round < self.request.rounds
        asked = ((region, self.asked(region)) for region in self.regions)
        return self.opens and any(total is not None and total != self.grown.get(region, 0) for region, total in asked)

    def due(self, region: int) -> int | None:
        """Asked growth of this round: the straight line over the rounds, less what has grown, so that no gap's limit
        makes the text shorter for good. None: the inserter decides."""
        asked = self.asked(region)
        if asked is None:
            return None
        rounds = self.request.rounds
        share = asked * min(self.round + 1, rounds)  # of asked · rounds; rounded away from zero below
        line = share // rounds if asked < 0 else -(-share // rounds)
        return line - self.grown.get(region, 0)

    def keep_rate(self) -> float:
        """Of this round. A summary in several rounds comes to its keep rate step by step."""
        request = self.request
        return request.keep_rate ** (1 / request.rounds) if request.mode == "summarize" else request.keep_rate

    def deletions(self, deletable: int) -> int:
        """Tokens to delete among ``deletable`` ones. Rounds beyond those asked for only mend the length."""
        request = self.request
        if request.mode in ("generate", "infill"):
            return 0
        if request.mode == "summarize":
            target = round(self.deletable * request.keep_rate ** ((self.round + 1) / request.rounds))
            return max(deletable - target, 0)
        if self.round >= request.rounds:
            return min(max(-(self.due(TEXT) or 0), 0), deletable)
        return round((1 - request.keep_rate) * deletable)

    def masks(self, region: int, deleted: int, likely: int, rate: float) -> int:
        """Masks to open in a region. ``likely``: sum of its gaps' most likely counts, ``rate``: of the mean counts."""
        request = self.request
        due = self.due(region)
        if due is not None:
            return max(deleted + due, 0)
        opinion = round(rate) if request.mode == "generate" else likely
        least = 1 if request.mode == "infill" and not self.grown.get(region) else 0
        room = self.room if request.max_growth is None else request.max_growth
        return max(least, min(opinion, deleted + room - self.grown.get(region, 0)))

    def close_round(self, deleted: int, opened: dict[int, int]) -> None:
        for region in self.regions:
            self.grown[region] = self.grown.get(region, 0) + opened.get(region, 0) - deleted
        self.round += 1


def natural_room(request: Request, max_length: int, max_gap_count: int) -> int:
    """How far a text grows by the inserter's own opinion.

    An edit at most doubles it, a generation ends where the model's own length does, a hole takes what one gap takes.
    """
    if request.mode == "infill":
        return max_gap_count
    if request.mode == "generate":
        return max(max_length - 2 - len(request.ids), max_gap_count)
    return max(len(request.ids), max_gap_count)
