"""A request to SpanFusionLM. Plain data without torch, checked before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from dualmask.core.checks import check
from dualmask.core.sampling import GREEDY, SamplingParams

VERIFIED: Literal["verified"] = "verified"
Gate = Literal["learned", "fast", "accurate", "verified"] | int  # a number: so many steps a span
GATES = "learned, fast, accurate, verified or fixed:n"
USUAL_TOKENS = 64


@dataclass(frozen=True)
class SpanOptions:
    """How texts are continued. Raises ValueError.

    tokens    most that are written; None: USUAL_TOKENS, or as many as the model can still read
    span      K: tokens that are refined together
    gate      when a span is done: the GateNet says so (learned), after one step (fast), after all (accurate), after so
              many, or as far as the decoder alone would have written the same (verified)
    sampling  how tokens are chosen
    """

    tokens: int | None = None
    span: int = 16
    gate: Gate = "learned"
    sampling: SamplingParams = GREEDY

    def __post_init__(self) -> None:
        check(self.tokens is None or self.tokens >= 0, "tokens", self.tokens, "0 or more")
        check(self.span >= 1, "span", self.span, "1 or more tokens")

    def room(self, prompt: int, max_length: int) -> int:
        """How many tokens to write behind ``prompt`` tokens. Raises ValueError where they do not fit."""
        tokens = self.tokens
        if tokens is None:
            tokens = max(min(USUAL_TOKENS, max_length - 1 - prompt), 1)
        check_length(prompt, tokens, max_length)
        return tokens


def parse_gate(text: str) -> Gate:
    """``fixed:3`` is 3. Raises ValueError."""
    word, _, number = text.partition(":")
    if word == "fixed" and number.isdecimal() and int(number) >= 1:
        return int(number)
    for known in get_args(get_args(Gate)[0]):
        if text == known:
            return cast(Gate, known)
    raise ValueError(f"gate {text} is not possible: give {GATES} with n from 1 on")


def most_steps(gate: Gate, g_max: int) -> int | None:
    """Steps after which a span is done; None: the GateNet decides. ``verified``: one a pass. Raises ValueError."""
    if isinstance(gate, str):
        steps = {"learned": None, "fast": 1, "accurate": g_max, VERIFIED: 1}
        check(gate in steps, "gate", gate, GATES)
        return steps[gate]
    check(1 <= gate <= g_max, "gate", f"fixed:{gate}", f"{GATES} with n from 1 to this model's g_max={g_max}")
    return gate


def check_length(prompt: int, tokens: int, max_length: int) -> None:
    """Raises ValueError where ``prompt`` tokens and ``tokens`` more do not fit behind BOS."""
    if 1 + prompt + tokens > max_length:
        fits = max_length - 1 - prompt
        remedy = f"write at most {fits}, or shorten it" if fits > 0 else f"shorten it to {max_length - 2} or fewer"
        raise ValueError(
            f"a prompt of {prompt} tokens and {tokens} to write: with the mark at the beginning the model reads "
            f"{max_length}; {remedy}"
        )
