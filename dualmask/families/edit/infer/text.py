"""Text at the edges of the engine: locks and holes in characters become token ranges, results become text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dualmask.core.lexicon import Lexicon, character_starts, read_lexicon
from dualmask.core.tokenizer import Tokenizer
from dualmask.core.words import FILE, WordList
from dualmask.families.edit.infer.apart import ClosedUp
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.known_words import KnownWords
from dualmask.families.edit.infer.operating_point import Decision, OperatingPoint
from dualmask.families.edit.infer.protect import Protection, Span, kept_runs, protected_spans
from dualmask.families.edit.infer.request import Hole, Request, Result, TextRequest
from dualmask.families.edit.infer.trace import Trace, describe
from dualmask.families.edit.infer.windows import Progress
from dualmask.inference.loading import Loaded

GLUED = (" ", "\n", "\t", "(", "[", "{", "-", "/")  # behind which no space stands


@dataclass(frozen=True)
class TextResult:
    """``draft``: the text before the first round: the input, for an infill without its marks, or with marks closed up
    that stand apart in it (``apart``)."""

    input: str
    draft: str
    output: str
    trace: Trace


def engine_of(
    loaded: Loaded,
    lexicon: Lexicon,
    *,
    progress: Progress | None = None,
    point: OperatingPoint | None = None,
    known: WordList | None = None,
) -> Engine:
    """The engine of a model, with the thresholds and the known words of its folder where none are given."""
    if loaded.folder is not None:
        point = point or Decision.read(loaded.folder).chosen
        if known is None and (loaded.folder / FILE).is_file():
            known = WordList.load(loaded.folder / FILE)
    words = None if known is None else KnownWords(loaded.tokenizer, known)
    return Engine(loaded.model, lexicon, progress=progress, point=point, known=words)


class Writer:
    """A loaded model that edits, generates, summarizes and infills text."""

    def __init__(
        self, loaded: Loaded, *, progress: Progress | None = None, point: OperatingPoint | None = None
    ) -> None:
        """point: thresholds of requests that name none; None: those of the model's folder."""
        self.tokenizer = loaded.tokenizer
        self.lexicon = read_lexicon(loaded.tokenizer)
        self.engine = engine_of(loaded, self.lexicon, progress=progress, point=point)

    def run(self, requests: Sequence[TextRequest]) -> list[TextResult]:
        """One result a request, in order."""
        closed = [_closed_up(request) for request in requests]
        read = [
            replace(request, text=each.text) if each else request
            for request, each in zip(requests, closed, strict=True)
        ]
        results = self.engine.run([prepare(request, self.tokenizer, self.lexicon) for request in read])
        return [self._finish(*each) for each in zip(requests, closed, results, strict=True)]

    def _finish(self, request: TextRequest, closed: ClosedUp | None, result: Result) -> TextResult:
        trace = describe(request.text, result, self.tokenizer, self.lexicon)
        if closed is not None:
            trace["output"] = closed.set_apart(trace["output"])
        draft = self.tokenizer.decode(result.rounds[0].draft)
        return TextResult(request.text, draft, trace["output"], trace)


def _closed_up(request: TextRequest) -> ClosedUp | None:
    """The text as the model reads it, if that is not as it is."""
    if not request.mends or request.lock_texts or request.lock_spans:
        return None
    return ClosedUp.of(request.text, request.marks_apart)


def prepare(request: TextRequest, tokenizer: Tokenizer, lexicon: Lexicon) -> Request:
    """The request in token ids."""
    if request.mode == "infill":
        ids, holes = _with_holes(request, tokenizer)
    else:
        ids, holes = tokenizer.encode(request.text), []
    tokens = _Tokens(character_starts(ids, lexicon), lexicon.continuation[ids].tolist())
    return Request(
        ids,
        request.mode,
        locked=_locked_ranges(request, tokens),
        holes=holes,
        protection=_protection(request.text, ids, tokens, lexicon) if request.protects else None,
        new_word=not request.text.endswith(GLUED),
        sampling=request.sampling,
        **request.options,
    )


def _with_holes(request: TextRequest, tokenizer: Tokenizer) -> tuple[list[int], list[Hole]]:
    """The text around the marks, and the positions where they stood.

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
        if not last and not (holes and holes[-1].position == len(ids)):
            holes.append(Hole(len(ids), request.tokens, spaced))
    return ids, holes


def _locked_ranges(request: TextRequest, tokens: _Tokens) -> list[Span]:
    if request.mode == "infill":
        return []  # nothing is deleted and only the holes are written to
    spans = [*request.lock_spans, *(span for text in request.lock_texts for span in _occurrences(text, request.text))]
    return [tokens.holding(span) for span in spans]


def _protection(text: str, ids: Sequence[int], tokens: _Tokens, lexicon: Lexicon) -> Protection:
    """A protected span keeps the blank in front of it. The space behind it, and the last of several blanks, may be that
    of the next word, which may change: there only a space has to follow."""
    spans, runs = protected_spans(text), kept_runs(text)
    followed = [(max(start - 1, 0), end) for start, end in spans]
    followed += [(start, end - 1) for start, end in runs if text[end - 1] == " "]
    ranges = [tokens.holding(part) for part in followed]
    apart = [behind - 1 for (_, behind), (_, end) in zip(ranges, followed, strict=True) if tokens.starts[behind] == end]
    ranges += [tokens.holding(run) for run in runs if text[run[1] - 1] != " "]
    ranges += [(number, number + 1) for number, byte in enumerate(lexicon.fallback[ids].tolist()) if byte]
    return Protection(tuple(ranges), tuple(apart), front=bool(spans) and spans[0][0] == 0)


def _occurrences(text: str, whole: str) -> Iterator[tuple[int, int]]:
    """Character ranges of all occurrences, overlapping ones too."""
    position = whole.find(text)
    while position >= 0:
        yield position, position + len(text)
        position = whole.find(text, position + 1)


class _Tokens:
    """Where the tokens of a text stand. starts [tokens + 1]: ``character_starts``; continues: of each token, whether it
    cannot be parted from the one before it."""

    def __init__(self, starts: Tensor, continues: list[bool]) -> None:
        self.starts: list[int] = starts.tolist()
        self.continues = continues

    def holding(self, characters: Span) -> Span:
        """All tokens that hold one of the characters, and those that cannot be parted from them."""
        start, end = characters
        first = bisect_right(self.starts, start) - 1
        while self.continues[first]:
            first -= 1
        behind = bisect_left(self.starts, end, hi=len(self.continues))
        while behind < len(self.continues) and self.continues[behind]:
            behind += 1
        return first, behind
