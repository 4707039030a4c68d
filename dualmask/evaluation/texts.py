"""Evaluation texts: jsonl with a "text" a line, cut into sequences that the model can read whole."""

# B batch, T tokens

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

SHORTEST = 8  # tokens; shorter rests have too little context to restore anything from
BATCH = 128


def read_texts(file: Path) -> list[str]:
    """Raises ValueError naming the line that is not {"text": "…"}."""
    if not file.is_file():
        raise ValueError(f'--data {file}: no such file; give a jsonl file with a "text" a line')
    texts = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                texts.append(str(json.loads(line)["text"]))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f'--data {file} line {number}: not an object with a "text" ({error})') from None
    return texts


def sequences(texts: list[str], tokenizer: Tokenizer, max_length: int, shortest: int = SHORTEST) -> Iterator[list[int]]:
    """BOS … EOS sequences of at most ``max_length`` ids: each text in windows, rests below ``shortest`` left out."""
    room = max_length - 2
    for text in texts:
        ids = tokenizer.encode(text)
        for start in range(0, len(ids), room):
            window = ids[start : start + room]
            if len(window) >= shortest:
                yield [BOS_ID, *window, EOS_ID]


def batches(
    texts: list[str],
    tokenizer: Tokenizer,
    max_length: int,
    *,
    limit: int,
    shortest: int = SHORTEST,
    device: torch.device | str = "cpu",
) -> list[Batch]:
    """At most ``limit`` sequences, spread evenly over the texts, in batches of BATCH; keys number the sequences."""
    rows = list(sequences(texts, tokenizer, max_length, shortest))
    if not rows:
        raise ValueError(f"--data: no text of at least {shortest} tokens")
    if len(rows) > limit:
        rows = [rows[number * len(rows) // limit] for number in range(limit)]
    return [collate(rows[start : start + BATCH], start, max_length).to(device) for start in range(0, len(rows), BATCH)]


def collate(rows: Sequence[Sequence[int]], first: int, width: int) -> Batch:
    """A batch of rows of ``width`` tokens; its keys number the sequences from ``first`` on."""
    tokens = torch.full((len(rows), width), PAD_ID)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    length = torch.tensor([len(row) for row in rows])
    return Batch(tokens, length, noise.mix(torch.arange(first, first + len(rows))))
