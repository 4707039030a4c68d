"""A file of human scores for stage `reward`: {"draft", "output", "score"} a line. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dualmask.config.tree import ConfigError
from dualmask.core.tokenizer import Tokenizer

Edit = tuple[list[int], list[int], float]  # ids of the draft, ids of the output, score


def read_scores(path: Path, tokenizer: Tokenizer, max_length: int) -> list[Edit]:
    """Every line's edit. Raises ConfigError that names file and line, or says what the file lacks as a whole."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"reward.scores {path}: cannot be read: {reason}") from None
    edits = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                edits.append(_edit(line, tokenizer, max_length - 2))
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path} line {number}: {error}") from None
    if len({score for _, _, score in edits}) < 2:
        raise ConfigError(f"{path}: needs edits with different scores to learn from, has {len(edits)} with one score")
    return edits


def _edit(line: str, tokenizer: Tokenizer, most: int) -> Edit:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    kinds: dict[str, Any] = {"draft": str, "output": str, "score": (int, float)}
    if not isinstance(fields, dict) or set(fields) != set(kinds):
        raise ValueError('must be one object with exactly the keys "draft", "output", "score"')
    for key, kind in kinds.items():
        value = fields[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key} = {value!r} must be a {'number' if key == 'score' else 'text'}")
    if not math.isfinite(fields["score"]):
        raise ValueError(f"score = {fields['score']!r} must be finite")
    draft, output = (_ids(key, fields[key], tokenizer, most) for key in ("draft", "output"))
    return draft, output, float(fields["score"])


def _ids(key: str, text: str, tokenizer: Tokenizer, most: int) -> list[int]:
    ids = tokenizer.encode(text)
    if len(ids) > most:
        raise ValueError(f"{key} has {len(ids)} tokens, model.max_length={most + 2} holds {most}: shorten or split it")
    return ids
