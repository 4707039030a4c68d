"""What is asked of SpanFusionLM. Plain data without torch, checked before a model is loaded."""

from __future__ import annotations

from typing import Literal

Gate = Literal["learned", "fast", "accurate"] | int  # a number: so many steps a span
GATES = "learned, fast, accurate or fixed:n"


def parse_gate(text: str) -> Gate:
    """``fixed:3`` is 3. Raises ValueError."""
    word, colon, number = text.partition(":")
    if word == "fixed" and colon and number.isdecimal() and int(number) >= 1:
        return int(number)
    for known in ("learned", "fast", "accurate"):
        if text == known:
            return known
    raise ValueError(f"gate {text} is not possible: give {GATES} with n from 1 on")


def most_steps(gate: Gate, g_max: int) -> int | None:
    """Steps after which a span stops whatever the GateNet says; None: the GateNet decides. Raises ValueError."""
    if gate == "learned":
        return None
    steps = {"fast": 1, "accurate": g_max}.get(gate, 0) if isinstance(gate, str) else gate
    if not 1 <= steps <= g_max:
        raise ValueError(f"gate {gate} is not possible: give {GATES} with n from 1 to this model's g_max={g_max}")
    return steps


def check_length(prompt: int, tokens: int, max_length: int) -> None:
    """Raises ValueError where ``prompt`` tokens and ``tokens`` more do not fit, BOS included."""
    if 1 + prompt + tokens > max_length:
        fits = max(max_length - 1 - prompt, 0)
        remedy = f"write at most {fits}" if fits else f"shorten it to {max_length - 2} or fewer"
        raise ValueError(
            f"a prompt of {prompt} tokens, {tokens} to write and the beginning of the text: the model reads "
            f"{max_length}; {remedy}"
        )
