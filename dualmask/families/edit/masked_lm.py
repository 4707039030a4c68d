"""Masked-LM scores: the filler's probability of every token of a whole text, with every N-th token masked."""

# B batch, T tokens, N = stride, D width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import MASK_ID
from dualmask.nn.token_losses import slots

# (tokens [B, W], length [B], slot [M]) → logits [M, V / tensor], states [B, W, D]
Look = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
# (logits, target [M]) → cross entropy of the target and of the likeliest token, each [M]
TargetAndBestNLL = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MaskedLMScores:
    prob: Tensor  # [B, T] probability of each deletable token; 0 at the others
    best: Tensor  # [B, T] probability of the likeliest token there: is the filler sure of something else?
    pooled: Tensor | None  # [B, D] mean of the filler's states over the text; None: the filler has not read it


@torch.no_grad()
def masked_lm_scores(
    look: Look, target_and_best_nll: TargetAndBestNLL, batch: Batch, stride: int, deletable: int | None = None
) -> MaskedLMScores:
    """Each token's probability, and that of the likeliest, when it and every ``stride``-th token from it are masked.

    One filler pass over ``stride`` copies of the batch, each with other tokens hidden. deletable: how many tokens that
    are in all (each is hidden once); None: the host waits to know it.
    """
    rows, width = batch.tokens.shape
    position = torch.arange(width, device=batch.tokens.device)
    offset = torch.arange(stride, device=batch.tokens.device)
    hidden = (position % stride == offset[:, None, None]) & batch.deletable  # [N, B, T]
    masked = batch.tokens.masked_fill(hidden, MASK_ID)
    slot = slots(hidden, deletable)
    target = batch.tokens.flatten()[slot % (rows * width)]
    logits, states = look(masked.flatten(0, 1), batch.length.repeat(stride), slot)
    prob, best = (
        torch.zeros(rows * width, device=slot.device).index_copy(0, slot % (rows * width), torch.exp(-nats))
        for nats in target_and_best_nll(logits, target)
    )
    present = batch.present[None, :, :, None]
    pooled = (states.view(stride, rows, width, -1) * present).sum((0, 2)) / (stride * batch.length[:, None])
    return MaskedLMScores(prob.view(rows, width), best.view(rows, width), pooled)
