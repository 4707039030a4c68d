"""One round of DualMaskLM (method.md §1): delete → drop → count → insert → fill, as index arithmetic on token ids.

There is one such function. Who plays the round decides by its rules what is deleted, how many [MASK]s go into each gap
and what is written there: training by labels, draws and estimators (``training_rules.py``), inference within budgets
and through windows (``infer/rounds.py``), evaluation as it is told (``evaluate/given.py``). Nothing else differs.

Whatever is known of a token (that it is locked, how surely it was written, its embedding) is carried from the draft to
the text that comes out by gathering with ``source``.
"""

# B batch, T tokens of the draft, G gaps = T-1, W tokens of the text that comes out

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dualmask.core.batch import present
from dualmask.ops import gaps
from dualmask.ops.repeats import second_copies


@dataclass(frozen=True)
class Remainder:
    """A draft without its deleted tokens."""

    deleted: Tensor  # [B, T] bool
    keep: Tensor  # [B, T] bool: neither deleted nor padding
    skeleton: gaps.Skeleton  # [B, T] the kept tokens, packed to the left
    source: Tensor  # [B, T] draft position of each token of the skeleton; 0 on its padding

    def rows(self, index: Tensor) -> Remainder:
        """Some of the texts."""
        skeleton = gaps.Skeleton(self.skeleton.tokens[index], self.skeleton.length[index])
        return Remainder(self.deleted[index], self.keep[index], skeleton, self.source[index])


@dataclass(frozen=True)
class Opened:
    """A skeleton with its [MASK]s in place."""

    remainder: Remainder
    count: Tensor  # [B, G] [MASK]s in each gap of the skeleton
    masked: gaps.Masked  # [B, W]
    source: Tensor  # [B, W] draft position of each kept token; of a [MASK] that of the kept token in front of it
    rank: Tensor  # [B, W] the number of each [MASK] in its gap: 0, 1, …; -1 at kept tokens
    replaced: Tensor  # [B, W] draft position of each kept token, of the r-th [MASK] of a gap that of the r-th token
    #                   deleted there; -1 where there is no such token

    def carry(self, known: Tensor) -> Tensor:
        """[B, W, …] what is known of each draft token, ``known`` [B, T, …]; a [MASK] has it from the kept token in
        front of it."""
        return take(known, self.source)


@dataclass(frozen=True)
class RoundResult:
    """What a round made of a batch of drafts."""

    opened: Opened
    tokens: Tensor  # [B, W] ids, PAD behind

    @property
    def length(self) -> Tensor:
        """[B]"""
        return self.opened.masked.length

    @property
    def is_mask(self) -> Tensor:
        """[B, W] bool: the token was written in this round."""
        return self.opened.masked.is_mask

    @property
    def deleted(self) -> Tensor:
        """[B, T] bool"""
        return self.opened.remainder.deleted

    @property
    def count(self) -> Tensor:
        """[B, G] tokens written into each gap of the skeleton."""
        return self.opened.count

    @property
    def changed(self) -> Tensor:
        """[B] bool: something was deleted or inserted."""
        return self.deleted.any(1) | (self.count.sum(1) > 0)


class Rules(Protocol):
    """Who decides in a round. An object decides in one round of one batch; it may keep what it thought on the way."""

    def delete(self) -> Tensor:
        """[B, T] bool: tokens of the draft that go. Never BOS, EOS or padding."""
        ...

    def count(self, remainder: Remainder) -> Tensor:
        """[B, G] int64 ≥ 0: how many [MASK]s each gap of the skeleton takes; 0 where there is no gap."""
        ...

    def fill(self, opened: Opened) -> Tensor:
        """[B, W] ids: the masked text with a token at each [MASK]."""
        ...


def play_round(tokens: Tensor, length: Tensor, rules: Rules, width: int | None = None) -> RoundResult:
    """One round on drafts ``tokens`` [B, T] of ``length`` [B].

    width: W, where it is known beforehand and the counts keep within it: finding it out makes the host wait for the
    device. None: the length of the longest text that comes out.
    """
    remainder = drop(tokens, length, rules.delete())
    opened = insert(remainder, rules.count(remainder), width)
    return RoundResult(opened, rules.fill(opened))


def drop(tokens: Tensor, length: Tensor, deleted: Tensor) -> Remainder:
    """Packs what is left of tokens [B, T] without ``deleted`` [B, T] to the left."""
    keep = present(length, tokens.shape[1]) & ~deleted
    position = torch.arange(tokens.shape[1], device=tokens.device)
    return Remainder(deleted, keep, gaps.drop(tokens, keep), gaps.drop(position.expand_as(keep), keep).tokens)


def insert(remainder: Remainder, count: Tensor, width: int | None = None) -> Opened:
    """Opens ``count`` [B, G] [MASK]s in the gaps of the skeleton. Tokens deleted from one gap stood side by side."""
    last = remainder.source.shape[1] - 1
    if width is None:
        width = int((remainder.skeleton.length + count.sum(1)).max())
    masked = gaps.insert(remainder.skeleton, count, width)
    gap = masked.gap.clamp(0, last)
    source, behind = remainder.source.gather(1, gap), remainder.source.gather(1, (gap + 1).clamp_max(last))
    position = torch.arange(width, device=gap.device)
    rank = position - torch.where(masked.is_mask, 0, position).cummax(1).values - 1
    gone = source + 1 + rank
    replaced = torch.where(masked.is_mask, torch.where(gone < behind, gone, -1), source)
    return Opened(remainder, count, masked, source, rank, replaced)


def said_twice(remainder: Remainder, tokens: Tensor, inner: Tensor) -> Tensor:
    """[B, G] bool: gaps from which nothing but second copies (ops/repeats.py) was deleted: they leave no hole.

    tokens [B, T]: the draft; inner [B, T] bool: between BOS and EOS.
    """
    second = second_copies(tokens, inner)
    gone = gaps.gap_counts(remainder.keep, remainder.deleted)
    return (gone > 0) & (gaps.gap_counts(remainder.keep, remainder.deleted & second) == gone)


def take(values: Tensor, index: Tensor) -> Tensor:
    """[B, W, …] of values [B, T, …] those at the positions ``index`` [B, W]."""
    index = index.view(*index.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(*index.shape[:2], *values.shape[2:]))
