"""What the filler thinks of every token of a whole text: its probability with every N-th token hidden."""

# B batch, T tokens, N = stride, D width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.batch import Batch
from dualmask.tokenizer import MASK_ID

# (tokens [B, W], length [B], slot [M]) → logits [M, V / tensor], states [B, W, D]
Look = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
CrossEntropy = Callable[[Tensor, Tensor], Tensor]  # (logits, target [M]) → [M]


@dataclass(frozen=True)
class Opinion:
    prob: Tensor  # [B, T] probability of each deletable token; 0 at the others
    pooled: Tensor  # [B, D] mean of the filler's states over the text


@torch.no_grad()
def filler_opinion(look: Look, cross_entropy: CrossEntropy, batch: Batch, stride: int) -> Opinion:
    """Each token's probability when it and every ``stride``-th token from it are masked.

    One filler pass over ``stride`` copies of the batch, each with other tokens hidden.
    """
    rows, width = batch.tokens.shape
    place = torch.arange(width, device=batch.tokens.device)
    turn = torch.arange(stride, device=batch.tokens.device)
    hidden = (place % stride == turn[:, None, None]) & batch.deletable  # [N, B, T]
    masked = torch.where(hidden, MASK_ID, batch.tokens)
    slot = hidden.flatten().nonzero().squeeze(1)
    target = batch.tokens.flatten()[slot % (rows * width)]
    logits, states = look(masked.flatten(0, 1), batch.length.repeat(stride), slot)
    prob = torch.zeros(rows * width, device=batch.tokens.device)
    prob = prob.index_copy(0, slot % (rows * width), torch.exp(-cross_entropy(logits, target))).view(rows, width)
    present = batch.present[None, :, :, None]
    pooled = (states.view(stride, rows, width, -1) * present).sum((0, 2)) / (stride * batch.length[:, None])
    return Opinion(prob, pooled)
