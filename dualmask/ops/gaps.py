"""Deleting tokens and inserting masks: index arithmetic between a text, its skeleton and the masked sequence.

Gap j lies between the skeleton tokens j and j+1. With the true counts, ``insert(drop(x))`` is x with each deleted token
replaced by [MASK]. Positions are those of the result, never those that tokens had before the deletion (docs/method.md).
"""

# B batch, T tokens, G gaps = T-1

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.tokenizer import MASK_ID, PAD_ID


@dataclass(frozen=True)
class Skeleton:
    tokens: Tensor  # [B, T] kept tokens packed to the left, PAD behind
    length: Tensor  # [B]


def drop(tokens: Tensor, keep: Tensor) -> Skeleton:
    """Packs the tokens where ``keep`` [B, T] bool holds to the left. ``keep`` is False on padding."""
    width = tokens.shape[1]
    index = torch.where(keep, keep.cumsum(1) - 1, width)
    packed = tokens.new_full((len(tokens), width + 1), PAD_ID).scatter(1, index, tokens)[:, :width]
    return Skeleton(packed, keep.sum(1))


def gap_index(keep: Tensor) -> Tensor:
    """[B, T]: a kept token's index in the skeleton; for a deleted token the index of its gap."""
    return keep.long().cumsum(1) - 1


def gap_counts(keep: Tensor, deleted: Tensor) -> Tensor:
    """[B, G] number of deleted tokens in each gap. The first token (BOS) is always kept."""
    counts = torch.zeros_like(keep, dtype=torch.long)
    counts.scatter_add_(1, gap_index(keep).clamp_min(0), deleted.long())
    return counts[:, :-1]


def gap_present(length: Tensor, width: int) -> Tensor:
    """[B, G] bool: both neighbours of the gap exist in a skeleton of ``length`` [B] (``width`` = T)."""
    return torch.arange(width - 1, device=length.device) < length[:, None] - 1


@dataclass(frozen=True)
class Masked:
    tokens: Tensor  # [B, W] skeleton with the [MASK]s inserted, PAD behind
    length: Tensor  # [B]
    is_mask: Tensor  # [B, W] bool: inserted here
    gap: Tensor  # [B, W] gap of an inserted mask, skeleton index of a kept token; meaningless on padding


def insert(skeleton: Skeleton, count: Tensor, width: int) -> Masked:
    """Inserts ``count`` [B, G] masks in the gaps of the skeleton, cut at ``width`` tokens: callers bound the counts."""
    tokens, length = skeleton.tokens, skeleton.length
    batch, size = tokens.shape
    count = count * gap_present(length, size)
    before = torch.nn.functional.pad(count.cumsum(1), (1, 0))  # masks left of skeleton token j
    source = torch.arange(size, device=tokens.device)
    real = source < length[:, None]
    index = torch.where(real, source + before, width).clamp_max(width)
    kept = torch.zeros(batch, width + 1, dtype=torch.bool, device=tokens.device).scatter(1, index, real)[:, :width]
    new_length = (length + count.sum(1)).clamp_max(width)
    present = torch.arange(width, device=tokens.device) < new_length[:, None]
    out = tokens.new_full((batch, width + 1), MASK_ID).scatter(1, index, tokens)[:, :width]
    return Masked(torch.where(present, out, PAD_ID), new_length, present & ~kept, gap_index(kept))


def contiguous_positions(like: Tensor) -> Tensor:
    """[B, W] float 0, 1, 2, … for ``like`` [B, W, …]; real-valued, because positions may carry a gradient."""
    return torch.arange(like.shape[1], device=like.device, dtype=torch.float32).expand(like.shape[:2])


def straight_through_positions(keep: Tensor, gap_rate: Tensor) -> Tensor:
    """[B, T] positions 0, 1, 2, … of the sequence with masks in place; their gradient reaches the inserter's rates.

    pos(t) = t + Σ_{i<gap(t)} (c_i − stop(c_i)) with c_i = k·q_i, q = λ/Σλ, k = Σ true counts: forward exactly t,
    backward the effect on t of moving masks between the gaps before it.

    keep [B, T] bool, gap_rate [B, G] ≥ 0 (0 where the gap does not exist).
    """
    number = (~keep).sum(1, keepdim=True).to(gap_rate)  # scales the gradient only, so padding may be counted
    share = gap_rate / gap_rate.sum(1, keepdim=True).clamp_min(1e-6)
    moved = number * share
    shift = torch.nn.functional.pad((moved - moved.detach()).cumsum(1), (1, 0))
    exact = contiguous_positions(keep)
    return exact + shift.gather(1, gap_index(keep).clamp_min(0))


def gap_rate(gap_logits: Tensor, present: Tensor) -> Tensor:
    """λ [B, G]: the expected count Σ n·P(n) of each gap from logits [B, G, K+1]; 0 where there is no gap."""
    number = torch.arange(gap_logits.shape[-1], device=gap_logits.device, dtype=torch.float32)
    return (gap_logits.softmax(-1) * number).sum(-1) * present
