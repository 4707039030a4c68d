"""Held-out texts and what was made wrong of them: what the suite `editing` is measured on."""

# N texts, B batch, T tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dualmask.config.corruption import KINDS, NATURAL, CorruptionConfig
from dualmask.config.natural import NaturalErrors
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.evaluation import texts
from dualmask.inference.loading import Loaded
from dualmask.ops.corruption import LOOKED_UP
from dualmask.ops.mistakes import make_mistakes

ALL_KINDS = (*KINDS, NATURAL)
GROWING = (*LOOKED_UP, NATURAL)  # that cost several tokens
TOKEN_KINDS = tuple(kind for kind in KINDS if kind not in LOOKED_UP)
ROOM = {False: 8, True: 4}  # targets leave so large a part (1/8, 1/4) of max_length free; GROWING ones cost several


@dataclass(frozen=True)
class Pairs:
    """N texts, wrong and right, in token ids without BOS and EOS, and the same as batches."""

    wrong: list[Batch]
    right: list[Batch]

    @property
    def sources(self) -> list[list[int]]:
        return rows(self.wrong)

    @property
    def targets(self) -> list[list[int]]:
        return rows(self.right)


def rows(batches: Sequence[Batch]) -> list[list[int]]:
    """Token ids without BOS, EOS and padding."""
    return [
        tokens[1 : length - 1]
        for batch in batches
        for tokens, length in zip(batch.tokens.tolist(), batch.length.tolist(), strict=True)
    ]


def right_texts(lines: list[str], loaded: Loaded, *, limit: int, typos: bool) -> list[Batch]:
    """Windows of the texts, short enough that they may grow by what is doubled or misspelt. Rests of less than half the
    length are left out: a tenth of a few tokens is often none."""
    width = loaded.config.max_length
    where = next(loaded.model.parameters()).device
    room = width - width // ROOM[typos]
    batches = texts.batches(lines, loaded.tokenizer, room, limit=limit, shortest=room // 2, device=where)
    return [_padded(batch, width) for batch in batches]


def make_wrong(right: Sequence[Batch], loaded: Loaded, *, rate: float, kinds: Sequence[str]) -> Pairs:
    """Of each text a share ``rate`` of the tokens is made wrong, on average, by the ``kinds`` of ``ops.mistakes``.

    Each kind is as likely as the others. Raises ValueError for what cannot be done.
    """
    config = corruption(rate, kinds)
    errors = ErrorTables.of(loaded.tokenizer, config.needs)
    wrong = []
    for batch in right:
        tokens, length = make_mistakes(batch, torch.ones_like(batch.length, dtype=torch.bool), 0, config, errors)
        wrong.append(Batch(tokens, length, batch.key))
    return Pairs(wrong, list(right))


def corruption(rate: float, kinds: Sequence[str]) -> CorruptionConfig:
    """natural: its share of the texts has errors of words. Raises ValueError naming what is wrong."""
    if unknown := sorted(set(kinds) - set(ALL_KINDS)):
        raise ValueError(f"--kinds {','.join(kinds)}: {unknown[0]!r} is not one of {', '.join(ALL_KINDS)}")
    if not kinds:
        raise ValueError(f"--kinds: name at least one of {', '.join(ALL_KINDS)}")
    if not 0 < rate < 1:
        raise ValueError(f"--corruption-rate {rate}: give a share of the tokens between 0 and 1, for instance 0.1")
    weights = {kind: float(kind in kinds) for kind in KINDS}
    natural = NaturalErrors(share=kinds.count(NATURAL) / len(kinds), rate_low=rate, rate_high=rate)
    return CorruptionConfig(rate_low=rate, rate_high=rate, shuffle_share=0.0, natural=natural, **weights)


def _padded(batch: Batch, width: int) -> Batch:
    more = width - batch.tokens.shape[1]
    return Batch(torch.nn.functional.pad(batch.tokens, (0, more)), batch.length, batch.key)  # PAD_ID is 0
