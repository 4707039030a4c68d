"""What the filler thinks of every token of a whole text: its probability with every N-th token hidden."""

# B batch, T tokens, N = stride

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dualmask.batch import Batch
from dualmask.tokenizer import MASK_ID

Fill = Callable[[Tensor, Tensor, Tensor], Tensor]  # (tokens [B, W], length [B], slot [M]) → logits [M, V / tensor]
CrossEntropy = Callable[[Tensor, Tensor], Tensor]  # (logits, target [M]) → [M]


@torch.no_grad()
def filler_probability(fill: Fill, cross_entropy: CrossEntropy, batch: Batch, stride: int) -> Tensor:
    """[B, T] probability of each deletable token when it and every ``stride``-th token from it are masked; else 0.

    One filler pass over ``stride`` copies of the batch, each with other tokens hidden.
    """
    rows, width = batch.tokens.shape
    place = torch.arange(width, device=batch.tokens.device)
    turn = torch.arange(stride, device=batch.tokens.device)
    hidden = (place % stride == turn[:, None, None]) & batch.deletable  # [N, B, T]
    masked = torch.where(hidden, MASK_ID, batch.tokens)
    slot = hidden.flatten().nonzero().squeeze(1)
    target = batch.tokens.flatten()[slot % (rows * width)]
    logits = fill(masked.flatten(0, 1), batch.length.repeat(stride), slot)
    prob = torch.zeros(rows * width, device=batch.tokens.device)
    return prob.index_copy(0, slot % (rows * width), torch.exp(-cross_entropy(logits, target))).view(rows, width)
