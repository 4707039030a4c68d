"""Where the rounds of a training example begin: a whole text, a part of it, nothing, or a wrong text."""

# B batch, T tokens

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.config.corruption import CorruptionConfig
from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.ops import deletion, gaps
from dualmask.ops.corruption import by_weight
from dualmask.ops.mistakes import make_mistakes

KINDS = ("rewrite", "skeleton", "prefix", "empty", "corrupted", "clean")
REWRITE, SKELETON, PREFIX, EMPTY, CORRUPTED, CLEAN = range(len(KINDS))


@dataclass(frozen=True)
class Start:
    tokens: Tensor  # [B, T] ids, PAD behind
    length: Tensor  # [B]
    kind: Tensor  # [B] int64 index into KINDS


def start_states(
    batch: Batch,
    step: int,
    shares: Mapping[str, float],
    keep_rate: Tensor,
    span_share: float,
    mean_span: float,
    corruption: CorruptionConfig,
    errors: ErrorTables | None,
) -> Start:
    """One start state for each text, its kind drawn in proportion to ``shares`` (a kind left out has none).

    rewrite, clean: the text itself. skeleton: what random deletion leaves at ``keep_rate`` [B]. prefix: its first
    tokens, at least one missing. empty: BOS and EOS. corrupted: what ``ops.mistakes`` makes of it.
    """
    kind = by_weight(noise.uniform(batch.key, "start kind", step), [shares.get(name, 0.0) for name in KINDS])
    score = deletion.random_scores(batch.key, step, batch.tokens.shape[1], span_share, mean_span)
    deleted = deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))
    row = kind[:, None]
    gone = (row == SKELETON) & deleted | (row == PREFIX) & _behind_prefix(batch, step) | (row == EMPTY)
    kept = gaps.drop(batch.tokens, batch.present & ~(gone & batch.deletable))
    corrupted = kind == CORRUPTED
    wrong, wrong_length = make_mistakes(batch, corrupted, step, corruption, errors)
    return Start(
        torch.where(corrupted[:, None], wrong, kept.tokens), torch.where(corrupted, wrong_length, kept.length), kind
    )


def edits(kind: Tensor) -> Tensor:
    """[B] bool: start states in which there is something to delete, or to be found good: whole texts."""
    return (kind == REWRITE) | (kind == CORRUPTED) | (kind == CLEAN)


def _behind_prefix(batch: Batch, step: int) -> Tensor:
    """[B, T] bool: behind the first n inner tokens, n uniform in 0 … inner tokens - 1."""
    inner = batch.deletable.sum(1)
    size = (noise.uniform(batch.key, "prefix", step) * inner).long()
    return torch.arange(batch.tokens.shape[1], device=inner.device) > size[:, None]
