"""SpanFusionLM at the edges: text becomes prompts, spans become text with a trace.

The trace is one JSON object a text: ``{"input", "output", "mode", "rounds_used", "seed", "trace": [span, …]}``.
``output`` is the input and what follows it, ``rounds_used`` the number of steps in all. Of each span

* ``span``      1, 2, …
* ``steps``     in how many steps it was refined
* ``entropy``   [nats, …]: what the gate read in each step, the decoder's mean entropy over the positions still open
* ``filled``    [{"position", "text", "confidence", "step"}, …] in reading order: the token's first character in the
  output (Unicode code points), the model's probability of the token, and the step, from 1, in which it was written.
  What stands behind the end of the text is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TypedDict

from dualmask.core.lexicon import character_starts, read_lexicon
from dualmask.core.tokenizer import EOS_ID
from dualmask.families.span import verified
from dualmask.families.span.generate import SpanTrace, Written, write
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.request import VERIFIED, SpanOptions, most_steps
from dualmask.inference.loading import Loaded

PROMPTS_AT_ONCE = 64


class SpanFill(TypedDict):
    position: int
    text: str
    confidence: float
    step: int


class SpanSteps(TypedDict):
    span: int
    steps: int
    entropy: list[float]
    filled: list[SpanFill]


class SpansTrace(TypedDict):
    input: str
    output: str
    mode: str
    rounds_used: int
    seed: int
    trace: list[SpanSteps]


@dataclass(frozen=True)
class SpanResult:
    input: str
    output: str
    trace: SpansTrace


@dataclass(frozen=True)
class Prompt:
    text: str
    ids: list[int]
    tokens: int  # to write


class SpanWriter:
    """A loaded SpanFusionLM that continues texts. Raises ValueError for a gate that the model has not."""

    def __init__(self, loaded: Loaded[SpanFusion], options: SpanOptions) -> None:
        self.tokenizer, self.model, self.options = loaded.tokenizer, loaded.model, options
        self.lexicon = read_lexicon(loaded.tokenizer)
        self.allowed = self.lexicon.writable.clone()
        self.allowed[EOS_ID] = True
        most_steps(options.gate, loaded.model.span.g_max)

    def prepare(self, text: str) -> Prompt:
        """Raises ValueError where the text, or what is to be written behind it, is too long for the model."""
        ids = self.tokenizer.encode(text)
        return Prompt(text, ids, self.options.room(len(ids), self.model.config.max_length))

    def run(self, prompts: Sequence[Prompt]) -> Iterator[SpanResult]:
        """One result a prompt, in order."""
        for tokens, group in groupby(prompts, lambda prompt: prompt.tokens):
            alike = list(group)
            for first in range(0, len(alike), PROMPTS_AT_ONCE):
                part = alike[first : first + PROMPTS_AT_ONCE]
                for prompt, written in zip(part, self._write(part, tokens), strict=True):
                    yield self._finish(prompt, written)

    def _write(self, prompts: Sequence[Prompt], tokens: int) -> list[Written]:
        gate = self.options.gate
        return (verified.write if gate == VERIFIED else partial(write, gate=gate))(
            self.model,
            [prompt.ids for prompt in prompts],
            tokens=tokens,
            span=self.options.span,
            sampling=[self.options.sampling] * len(prompts),
            allowed=self.allowed,
        )

    def _finish(self, prompt: Prompt, written: Written) -> SpanResult:
        ids = prompt.ids + written.ids
        output, starts = self.tokenizer.decode(ids), character_starts(ids, self.lexicon).tolist()
        trace = SpansTrace(
            input=prompt.text,
            output=output,
            mode="generate",
            rounds_used=sum(span.steps for span in written.spans),
            seed=self.options.sampling.seed,
            trace=[
                _describe(number, span, output, starts[len(prompt.ids) + span.position :])
                for number, span in enumerate(written.spans, 1)
            ],
        )
        return SpanResult(prompt.text, output, trace)


def _describe(number: int, span: SpanTrace, output: str, starts: list[int]) -> SpanSteps:
    """``starts``: the character at which each token from the span's first on begins, and the length of the output."""
    tokens = zip(starts, starts[1:], span.confidence, span.order, strict=False)
    return SpanSteps(
        span=number,
        steps=span.steps,
        entropy=[round(nats, 6) for nats in span.entropy],
        filled=[
            SpanFill(position=start, text=output[start:end], confidence=round(confidence, 6), step=step + 1)
            for start, end, confidence, step in tokens
        ],
    )
