"""What happened to a text, round by round, as one JSON object a text.

``{"input", "output", "mode", "rounds_used", "stopped", "seed", "trace": [round, …]}``. ``mode`` is the request's;
``stopped`` says why there were no more rounds: rounds (those requested were over), nothing_to_do, seen_before,
confident or settled (``dualmask/families/edit/stopping.py``). Of each round

* ``round``     1, 2, …
* ``gate``      probability that the round edits. 1.0: tokens may be deleted (edit, summarize); 0.0: none may (generate,
                infill); auto: the Gate's own, and tokens may be deleted where it is above ``gate_threshold``
* ``deleted``   [[start, end, text], …]: characters [start, end) of the draft before the round, which are ``text``
* ``inserted``  [[position, count], …]: ``count`` masks opened at this character of the draft before the round, in front
  of whatever was deleted there
* ``filled``    [{"position", "text", "confidence"}, …] in reading order: the token's first character in the draft
  *after* the round, and the model's probability of the token

Characters are Unicode code points. The first draft is the input; for an infill it is the input with the marks cut out,
and with a mark the space in front of it; of a text whose commas and full stops stand apart (``apart``) it has them
closed up, and so have all drafts, but not ``output``. Deleting ``deleted`` leaves the round's skeleton; putting the
filled texts, by their counts, into the places of ``inserted`` gives the next draft (``replay``).
"""

from __future__ import annotations

from itertools import groupby
from typing import TypedDict

from dualmask.core.lexicon import Lexicon, character_starts
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.infer.request import Result, Round


class Fill(TypedDict):
    position: int
    text: str
    confidence: float


class RoundTrace(TypedDict):
    round: int
    gate: float
    deleted: list[tuple[int, int, str]]
    inserted: list[tuple[int, int]]
    filled: list[Fill]


class Trace(TypedDict):
    input: str
    output: str
    mode: str
    rounds_used: int
    stopped: str
    seed: int
    trace: list[RoundTrace]


def describe(text: str, result: Result, tokenizer: Tokenizer, lexicon: Lexicon) -> Trace:
    rounds = [_describe_round(number, done, tokenizer, lexicon) for number, done in enumerate(result.rounds, 1)]
    return Trace(
        input=text,
        output=tokenizer.decode(result.ids),
        mode=result.request.mode,
        rounds_used=len(rounds),
        stopped=result.stopped.word,
        seed=result.request.sampling.seed,
        trace=rounds,
    )


def replay(draft: str, rounds: list[RoundTrace]) -> str:
    """The text that the trace leads to from the first draft."""
    for done in rounds:
        fills = iter(done["filled"])
        pieces = [
            (position, 0, "".join(next(fills)["text"] for _ in range(count))) for position, count in done["inserted"]
        ]
        pieces += [(start, end - start, "") for start, end, _ in done["deleted"]]
        out, at = [], 0
        for position, gone, written in sorted(pieces, key=lambda piece: piece[:2]):
            out += [draft[at:position], written]
            at = position + gone
        draft = "".join(out) + draft[at:]
    return draft


def _describe_round(number: int, done: Round, tokenizer: Tokenizer, lexicon: Lexicon) -> RoundTrace:
    before, after = (character_starts(ids, lexicon).tolist() for ids in (done.draft, done.result))
    draft, result = tokenizer.decode(done.draft), tokenizer.decode(done.result)
    spans = [(before[run[0]], before[run[-1] + 1]) for run in _runs(done.deleted)]
    return RoundTrace(
        round=number,
        gate=round(done.gate, 6),
        deleted=[(start, end, draft[start:end]) for start, end in spans],
        inserted=[(before[position + 1], count) for position, count in done.inserted],
        filled=[
            Fill(
                position=after[position],
                text=result[after[position] : after[position + 1]],
                confidence=round(confidence, 6),
            )
            for position, _, confidence in done.filled
        ],
    )


def _runs(positions: list[int]) -> list[list[int]]:
    """Neighbouring positions together."""
    return [
        [position for _, position in run] for _, run in groupby(enumerate(positions), lambda pair: pair[1] - pair[0])
    ]
