"""A request to a model and its result, as text and in token ids. Plain data without torch.

A request that exists is a valid one: what cannot be done is refused at once, with the option, its value and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from dualmask.core.checks import check
from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.protect import Protection

if TYPE_CHECKING:
    from dualmask.families.edit.stopping import Reason

Mode = Literal["edit", "generate", "auto", "summarize", "infill"]
MODES: tuple[Mode, ...] = get_args(Mode)
FORCED_GATE: dict[Mode, float] = {"edit": 1.0, "summarize": 1.0, "generate": 0.0, "infill": 0.0}  # auto decides
GrowthSchedule = Literal["linear", "cosine"]
GROWTH_SCHEDULES: tuple[GrowthSchedule, ...] = get_args(GrowthSchedule)


@dataclass(frozen=True)
class Hole:
    """Where an infill writes: in front of token ``position``. ``tokens``: how many (None: the inserter's opinion, at
    least one). ``spaced``: the first token written must begin with a space."""

    position: int
    tokens: int | None = None
    spaced: bool = False


@dataclass(frozen=True)
class Request:
    """One text in token ids and what to do with it. Raises ValueError.

    ids                the text's tokens, without BOS and EOS
    keep_rate          share kept of the tokens that may be deleted: in each round of an edit, in all of a summary;
                       None (not in a summary): all are kept but those that the model takes for wrong
    edit_threshold, insert_threshold, fill_threshold, spelling_threshold, wording_threshold, gate_threshold, preference
                       how sure the model must be before it changes a text (``OperatingPoint``); None: as its own
                       operating point says
    growth             tokens that the result has more than the text (edit, generate, auto; negative in an edit only),
                       spread over the rounds; None: the inserter's own opinion, at most ``max_growth``
    anywhere           of a generation: tokens are written wherever something is missing; else behind the text only
    new_word           of such a continuation: its first token must begin with a space
    growth_schedule    linear: the same number in every round; cosine: few in the early rounds (MaskGIT)
    rounds             the engine stops earlier when nothing is left to do; a requested length may take further rounds
    stop_confidence    stop once the tokens of the last fill have this mean probability; None: never for that reason
    stop_distance      stop once a round changes less than this share of the text; None: never for that reason
    locked             token ranges [start, end): never deleted, nothing is inserted inside
    protection         what a correction leaves alone, and that it writes plain words only; None: nothing of that
    sampling           how tokens are chosen
    """

    ids: Sequence[int]
    mode: Mode
    keep_rate: float | None = None
    edit_threshold: float | None = None
    insert_threshold: float | None = None
    fill_threshold: float | None = None
    spelling_threshold: float | None = None
    wording_threshold: float | None = None
    gate_threshold: float | None = None
    preference: float | None = None
    growth: int | None = None
    max_growth: int | None = None
    anywhere: bool = False
    new_word: bool = False
    growth_schedule: GrowthSchedule = "linear"
    rounds: int = 1
    stop_confidence: float | None = None
    stop_distance: float | None = None
    locked: Sequence[tuple[int, int]] = ()
    holes: Sequence[Hole] = ()
    protection: Protection | None = None
    sampling: SamplingParams = GREEDY

    def __post_init__(self) -> None:
        check(self.mode in MODES, "mode", self.mode, f"one of {', '.join(MODES)}")
        if self.keep_rate is not None or self.mode == "summarize":
            right = self.keep_rate is not None and 0 <= self.keep_rate <= 1
            check(right, "keep rate", self.keep_rate, "0 (delete everything) … 1 (delete nothing)")
        OperatingPoint(**{name: value for name, value in self._thresholds.items() if value is not None})
        for name, limit in (("stop confidence", self.stop_confidence), ("stop distance", self.stop_distance)):
            check(limit is None or 0 <= limit <= 1, name, limit, "0 … 1, or leave it out")
        known = self.growth_schedule in GROWTH_SCHEDULES
        check(known, "growth schedule", self.growth_schedule, " or ".join(GROWTH_SCHEDULES))
        check(1 <= self.rounds <= 1000, "rounds", self.rounds, "1 … 1000")
        check(self.max_growth is None or self.max_growth >= 0, "max growth", self.max_growth, "0 or more")
        if self.growth is not None:
            check(self.growth >= 0 or self.mode == "edit", "growth", self.growth, "0 or more (negative: edit only)")
            check(abs(self.growth) <= 1_000_000, "growth", self.growth, "at most a million tokens")
        for hole in self.holes:
            check(0 <= hole.position <= len(self.ids), "hole", hole.position, f"0 … {len(self.ids)}")
            check(hole.tokens is None or 1 <= hole.tokens <= 1_000_000, "tokens of a hole", hole.tokens, "1 or more")
        protected = self.protection.ranges if self.protection else ()
        for start, end in (*self.locked, *protected):
            check(0 <= start < end <= len(self.ids), "locked range", (start, end), f"0 ≤ start < end ≤ {len(self.ids)}")

    def at(self, point: OperatingPoint) -> Request:
        """The request with the thresholds of ``point`` where it names none."""
        return replace(self, **{name: getattr(point, name) for name, own in self._thresholds.items() if own is None})

    @property
    def continues(self) -> bool:
        """Whether all that is written goes behind the text."""
        return self.mode == "generate" and not self.anywhere and len(self.ids) > 0

    @property
    def point(self) -> OperatingPoint:
        """The thresholds of a request that names them all (see ``at``)."""
        return OperatingPoint(**self._thresholds)

    @property
    def _thresholds(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(OperatingPoint)}


HOLE_MARK = "___"


@dataclass(frozen=True)
class TextRequest:
    """A text and what to do with it. Raises ValueError.

    lock_texts  every occurrence in the text is locked
    lock_spans  character ranges [start, end) that are locked
    marks_apart in a text that is mended, and has nothing locked: commas and full stops stand apart from words, as in
                ``I like it .``, and stay so (``apart``); None: where all of several do
    protect     what is no ordinary sentence stays (``protect``); None: in auto, and in an edit without a keep rate: an
                asked share could be out of reach
    hole        infill: the mark of a hole; marks side by side are one hole
    tokens      infill: tokens a hole; None: as many as the inserter sees missing there
    sampling    how tokens are chosen
    options     further options of ``Request`` by name: keep_rate, growth, rounds, …
    """

    text: str
    mode: Mode
    lock_texts: Sequence[str] = ()
    lock_spans: Sequence[tuple[int, int]] = ()
    protect: bool | None = None
    marks_apart: bool | None = None
    hole: str = HOLE_MARK
    tokens: int | None = None
    sampling: SamplingParams = GREEDY
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Request((), self.mode, holes=[Hole(0, self.tokens)], **self.options)
        check(bool(self.hole), "hole", repr(self.hole), f"the characters that mark a hole, for instance {HOLE_MARK}")
        check(all(self.lock_texts), "lock", "''", "the words that must stay")
        check(not (self.protect and self.mode == "infill"), "protect", "in infill", "holes alone: nothing else changes")
        check(
            not self.marks_apart or self.mends, "marks apart", "True", "where a text is mended: in auto, or in an edit"
        )
        for start, end in self.lock_spans:
            inside = 0 <= start < end <= len(self.text)
            check(inside, "lock span", f"{start}:{end}", f"start:end with 0 ≤ start < end ≤ {len(self.text)}")
        if self.mode == "infill" and self.text and self.hole not in self.text:
            raise ValueError(f"no hole: {self.hole!r} does not occur in the text; put it where words are missing")

    @property
    def mends(self) -> bool:
        """Whether nothing is asked for but that mistakes are corrected."""
        return self.mode == "auto" or (self.mode == "edit" and self.options.get("keep_rate") is None)

    @property
    def protects(self) -> bool:
        """Whether the text is protected."""
        return self.mends if self.protect is None else self.protect


@dataclass(frozen=True)
class Round:
    """What one round did, in positions of token sequences that include BOS (position 0) and EOS.

    draft     ids before the round
    gate      probability that the round edits: the Gate's own in auto, else 1 (edit) or 0 (nothing may be deleted)
    deleted   positions in the draft
    inserted  (position, count): masks opened behind the kept token at this position of the draft
    filled    (position in the result, id, confidence)
    result    ids after the round
    """

    gate: float
    draft: list[int]
    deleted: list[int]
    inserted: list[tuple[int, int]]
    filled: list[tuple[int, int, float]]
    result: list[int]


@dataclass(frozen=True)
class Result:
    request: Request
    ids: list[int]  # without BOS and EOS
    rounds: tuple[Round, ...]
    stopped: Reason  # NONE: the requested rounds were over
