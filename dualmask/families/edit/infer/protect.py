"""What a correction leaves alone: everything that is not an ordinary English sentence. Pure text, no model.

A text has

* letters    the ASCII letters
* marks      , . ; : ! ? ' " - which a correction may write and delete, as it may letters and single spaces
* frames     brackets, typographic quotes and apostrophes, long dashes: they stay, the words beside them may change
* blanks     ASCII white space. What is not one single space (line breaks, tabs, indentation) stays
* the rest   digits, symbols, other letters, emoji, control characters: they stay, and so does their chunk, which is
             what stands between two blanks. Chunks in which letters and marks form a name, a path or code stay too:
             ``os.path``, ``camelCase``, ``call(x)``, ``--option``, and everything between backticks

The law, for mode auto (and an edit without a keep rate), whatever the model says, over any number of rounds:

1. Without letters, marks and spaces, input and output are the same string.
2. The protected spans of the input, which are whole chunks, are in the output: verbatim, in order, and each still a
   whole chunk, that is between blanks or the ends of the text.
3. The blanks that are not a single space are in the output, verbatim and in order; two of them may have a space in
   common where all that stood between them went.

So nothing is ever glued to an address or a number, and what is written is letters, marks and single spaces
(``core.words.is_plain``). A token is kept whole if any of its characters has to stay, but for the last space of (2) and
(3), which may be that of another word; and of a letter that the tokenizer wrote as bytes every byte is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dualmask.core.words import BLANKS, MARKS

Span = tuple[int, int]  # characters [start, end)

FRAMES = "()[]“”‘’‚„«»‹›–—…"

_MARK, _FRAME, _BLANK = map(re.escape, (MARKS, FRAMES, BLANKS))
_UNUSUAL = re.compile(
    rf"""
      (`{{1,2}}) (?!`) [^\n]{{1,200}}? (?<!`) \1 (?!`)  # a code span, which may hold blanks
    | [^A-Za-z`{_MARK}{_FRAME}{_BLANK}]+ | `            # the rest
    | [A-Za-z] \( [^()\n]{{0,100}} \) | [A-Za-z][(\[]   # a call, which may hold blanks; an index
    | [A-Za-z]\.[A-Za-z] | (?<![^{_BLANK}{_FRAME}])\.[A-Za-z]  # os.path, .gitignore
    | [a-z][A-Z] | [A-Z]{{2}}[a-z]{{2}}                 # camelCase, IOError
    | (?<![^{_BLANK}{_FRAME}])-[A-Za-z]                 # an option
    | -- | :: | '' | "" | \.{{3}} | \(\) | \[\]
    """,
    re.VERBOSE,
)
_KEPT = re.compile(rf"[{_FRAME}]+|[{_BLANK}]{{2,}}|[\t\n\r\f\v]")


@dataclass(frozen=True)
class Protection:
    """What stays of a text, as ranges of its tokens.

    ranges  [start, end): never deleted, nothing is inserted inside
    apart   tokens behind which a space must follow unless what follows them is never deleted
    front   nothing is inserted in front of the text
    """

    ranges: tuple[Span, ...] = ()
    apart: tuple[int, ...] = ()
    front: bool = False


def protected_spans(text: str) -> list[Span]:
    """The chunks that stay, neighbours in one code span together; in order, apart from each other by blanks."""
    spans: list[Span] = []
    for match in _UNUSUAL.finditer(text):
        start, end = match.span()
        if spans and start < spans[-1][1]:
            start = spans.pop()[0] if end > spans[-1][1] else end
        if start < end:
            spans.append((_left_end(text, start), _right_end(text, end)))
    return spans


def kept_runs(text: str) -> list[Span]:
    """The frames, and the blanks that are not one single space."""
    return [match.span() for match in _KEPT.finditer(text)]


def _left_end(text: str, at: int) -> int:
    while at > 0 and text[at - 1] not in BLANKS:
        at -= 1
    return at


def _right_end(text: str, at: int) -> int:
    while at < len(text) and text[at] not in BLANKS:
        at += 1
    return at
