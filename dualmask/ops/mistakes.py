"""Wrong texts: errors of tokens (``ops.corruption``) or of words (``core.natural``), by their share."""

# B batch, T tokens

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dualmask.config.corruption import CorruptionConfig
from dualmask.config.natural import NaturalErrors
from dualmask.core import host, noise
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.core.natural.texts import NaturalTexts, Rates
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.ops.corruption import corrupt


def make_mistakes(
    batch: Batch, where: Tensor, step: int, config: CorruptionConfig, errors: ErrorTables | None
) -> tuple[Tensor, Tensor]:
    """Tokens [B, T], padded with PAD, and lengths [B] of the texts, with mistakes in those of ``where`` [B] bool; the
    others stay as they are. Functions of each text's key and the step. Without ``errors.natural`` all are errors of
    tokens."""
    natural = errors.natural if errors and config.natural.share > 0 else None
    chosen = where & (noise.uniform(batch.key, "natural", step) < config.natural.share)
    tokens, length = batch.tokens, batch.length
    if config.kinds:
        wrong = corrupt(tokens, length, batch.key, step, config, errors)
        tokens, length = _where(where if natural is None else where & ~chosen, wrong, (tokens, length))
    if natural is not None:
        tokens, length = _where(chosen, _natural(batch, chosen, step, config.natural, natural), (tokens, length))
    return tokens, length


def _where(rows: Tensor, yes: tuple[Tensor, Tensor], no: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.where(rows[:, None], yes[0], no[0]), torch.where(rows, yes[1], no[1])


def _natural(
    batch: Batch, chosen: Tensor, step: int, config: NaturalErrors, natural: NaturalTexts
) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] and lengths [B] with errors of words in the ``chosen`` texts [B]."""
    seeds = noise.bits_at(batch.key, "natural errors", torch.zeros_like(batch.key), step)
    tokens, length, rows, seed = host.Copy(batch.tokens, batch.length, chosen, seeds).wait()
    tokens, length = tokens.copy(), length.copy()
    rates = Rates.of(config.rate_low, config.rate_high, config.weights)
    for row in np.flatnonzero(rows).tolist():
        ids = tokens[row, 1 : length[row] - 1].tolist()
        wrong = natural.wrong(ids, tokens.shape[1] - 2, int(seed[row]), rates)
        length[row] = len(wrong) + 2
        tokens[row] = PAD_ID
        tokens[row, : length[row]] = [BOS_ID, *wrong, EOS_ID]
    return host.to_device(tokens, batch.tokens.device), host.to_device(length, batch.length.device)
