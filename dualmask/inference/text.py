"""Text at the edges of the engine: locks and holes in characters become token ranges, results become text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dualmask.inference.engine import Engine
from dualmask.inference.lexicon import Lexicon, read_lexicon
from dualmask.inference.loading import Loaded
from dualmask.inference.request import Hole, Mode, Request, Result
from dualmask.inference.trace import Trace, describe
from dualmask.inference.windows import Progress
from dualmask.tokenizer import Tokenizer

HOLE_MARK = "___"


@dataclass(frozen=True)
class TextRequest:
    """A text and what to do with it; ``options`` are those of ``Request`` by name.

    lock_texts  every occurrence in the text is locked
    lock_spans  character ranges [start, end) that are locked
    hole        infill: the mark of a place to fill; marks side by side are one place
    tokens      infill: tokens a hole; None: as many as the inserter sees missing there
    """

    text: str
    mode: Mode
    lock_texts: Sequence[str] = ()
    lock_spans: Sequence[tuple[int, int]] = ()
    hole: str = HOLE_MARK
    tokens: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextResult:
    input: str
    output: str
    trace: Trace


class Writer:
    """A loaded model that edits, generates, summarizes and infills text."""

    def __init__(self, loaded: Loaded, *, progress: Progress | None = None) -> None:
        self.tokenizer = loaded.tokenizer
        self.lexicon = read_lexicon(loaded.tokenizer)
        self.engine = Engine(loaded.model, self.lexicon, progress=progress)

    def run(self, requests: Sequence[TextRequest]) -> list[TextResult]:
        """Raises ValueError for what cannot be done, naming it."""
        results = self.engine.run([prepare(request, self.tokenizer, self.lexicon) for request in requests])
        return [self._finish(request, result) for request, result in zip(requests, results, strict=True)]

    def _finish(self, request: TextRequest, result: Result) -> TextResult:
        trace = describe(request.text, result, self.tokenizer, self.lexicon)
        return TextResult(request.text, trace["output"], trace)


def prepare(request: TextRequest, tokenizer: Tokenizer, lexicon: Lexicon) -> Request:
    """The request in token ids. Raises ValueError."""
    if request.mode == "infill":
        ids, holes = _with_holes(request, tokenizer)
    else:
        ids, holes = tokenizer.encode(request.text), []
    locked = _locked_ranges(request, character_starts(ids, lexicon))
    return Request(ids, request.mode, locked=locked, holes=holes, **request.options)


def character_starts(ids: Sequence[int], lexicon: Lexicon) -> Tensor:
    """[tokens + 1] the character at which each token begins, and the length of the text."""
    widths = lexicon.characters[torch.tensor(ids, dtype=torch.long)]
    return torch.nn.functional.pad(widths.cumsum(0), (1, 0))


def _with_holes(request: TextRequest, tokenizer: Tokenizer) -> tuple[list[int], list[Hole]]:
    """The text around the marks, and the places where they stood.

    A space in front of a mark is cut out with it, and the first token written there has to begin with white space:
    tokens carry the space in front of their word, so "The ___ of" is filled as "The" + " cat" + " of".
    """
    if not request.hole:
        raise ValueError("hole '' is not possible: give the characters that mark a hole, for instance ___")
    parts = request.text.split(request.hole)
    if len(parts) == 1 and request.text:
        raise ValueError(f"no hole: {request.hole!r} does not occur in the text; put it where words are missing")
    ids: list[int] = []
    holes: list[Hole] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        spaced = not last and part.endswith(" ")
        ids += tokenizer.encode(part[:-1] if spaced else part)
        if not last and not (holes and holes[-1].place == len(ids)):
            holes.append(Hole(len(ids), request.tokens, spaced))
    return ids, holes


def _locked_ranges(request: TextRequest, starts: Tensor) -> list[tuple[int, int]]:
    if request.mode == "infill":
        return []  # nothing is deleted and only the holes are written to
    length = len(request.text)
    spans = []
    for start, end in request.lock_spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"lock span {start}:{end} is not inside the text: give 0 ≤ start < end ≤ {length}")
        spans.append((start, end))
    for text in request.lock_texts:
        spans += _occurrences(text, request.text)
    return [_token_range(start, end, starts) for start, end in spans]


def _occurrences(text: str, whole: str) -> list[tuple[int, int]]:
    """Character ranges of all occurrences, overlapping ones too."""
    if not text:
        raise ValueError("lock '' is not possible: give the words that must stay")
    found = []
    place = whole.find(text)
    while place >= 0:
        found.append((place, place + len(text)))
        place = whole.find(text, place + 1)
    return found


def _token_range(start: int, end: int, starts: Tensor) -> tuple[int, int]:
    """All tokens that hold a character of [start, end), the later bytes of a character included."""
    first = int(torch.searchsorted(starts, start, right=True)) - 1
    behind = int(torch.searchsorted(starts[:-1], end, right=False))
    while behind < len(starts) - 1 and starts[behind + 1] == starts[behind]:
        behind += 1
    return first, behind
