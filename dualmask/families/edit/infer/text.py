"""Text at the edges of the engine: locks and holes in characters become token ranges, results become text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.lexicon import Lexicon, character_starts, read_lexicon
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Hole, Request, Result, TextRequest
from dualmask.families.edit.infer.trace import Trace, describe
from dualmask.families.edit.infer.windows import Progress
from dualmask.inference.loading import Loaded


@dataclass(frozen=True)
class TextResult:
    """``draft``: the text before the first round: the input, for an infill without its marks."""

    input: str
    draft: str
    output: str
    trace: Trace


class Writer:
    """A loaded model that edits, generates, summarizes and infills text."""

    def __init__(self, loaded: Loaded, *, progress: Progress | None = None) -> None:
        self.tokenizer = loaded.tokenizer
        self.lexicon = read_lexicon(loaded.tokenizer)
        self.engine = Engine(loaded.model, self.lexicon, progress=progress)

    def run(self, requests: Sequence[TextRequest]) -> list[TextResult]:
        """One result a request, in order."""
        results = self.engine.run([prepare(request, self.tokenizer, self.lexicon) for request in requests])
        return [self._finish(request, result) for request, result in zip(requests, results, strict=True)]

    def _finish(self, request: TextRequest, result: Result) -> TextResult:
        trace = describe(request.text, result, self.tokenizer, self.lexicon)
        draft = self.tokenizer.decode(result.rounds[0].draft)
        return TextResult(request.text, draft, trace["output"], trace)


def prepare(request: TextRequest, tokenizer: Tokenizer, lexicon: Lexicon) -> Request:
    """The request in token ids."""
    if request.mode == "infill":
        ids, holes = _with_holes(request, tokenizer)
    else:
        ids, holes = tokenizer.encode(request.text), []
    locked = _locked_ranges(request, character_starts(ids, lexicon), lexicon.continuation[ids].tolist())
    return Request(ids, request.mode, locked=locked, holes=holes, **request.options)


def _with_holes(request: TextRequest, tokenizer: Tokenizer) -> tuple[list[int], list[Hole]]:
    """The text around the marks, and the places where they stood.

    A space in front of a mark is cut out with it, and the first token written there has to begin with a space: tokens
    carry the space in front of their word, so "The ___ of" is filled as "The" + " cat" + " of". (Not where the space is
    all that stands between two marks.)
    """
    parts = request.text.split(request.hole)
    ids: list[int] = []
    holes: list[Hole] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        spaced = not last and part.endswith(" ") and not (holes and part == " ")
        ids += tokenizer.encode(part[:-1] if spaced else part)
        if not last and not (holes and holes[-1].place == len(ids)):
            holes.append(Hole(len(ids), request.tokens, spaced))
    return ids, holes


def _locked_ranges(request: TextRequest, starts: Tensor, continues: list[bool]) -> list[tuple[int, int]]:
    if request.mode == "infill":
        return []  # nothing is deleted and only the holes are written to
    spans = [*request.lock_spans, *(span for text in request.lock_texts for span in _occurrences(text, request.text))]
    return [_token_range(start, end, starts, continues) for start, end in spans]


def _occurrences(text: str, whole: str) -> Iterator[tuple[int, int]]:
    """Character ranges of all occurrences, overlapping ones too."""
    place = whole.find(text)
    while place >= 0:
        yield place, place + len(text)
        place = whole.find(text, place + 1)


def _token_range(start: int, end: int, starts: Tensor, continues: list[bool]) -> tuple[int, int]:
    """All tokens that hold a character of [start, end), and those that cannot be parted from them."""
    first = int(torch.searchsorted(starts, start, right=True)) - 1
    while continues[first]:
        first -= 1
    behind = int(torch.searchsorted(starts[:-1], end, right=False))
    while behind < len(continues) and continues[behind]:
        behind += 1
    return first, behind
