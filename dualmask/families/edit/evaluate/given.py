"""How an evaluation decides in a round: deletions are given, and the likeliest token is written at each [MASK]."""

# B batch, T tokens, G gaps = T-1, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.families.edit.model import DualMask
from dualmask.families.edit.round import Opened, Remainder
from dualmask.families.edit.told import ToldGaps, tokens_at, told_gaps, told_masks
from dualmask.nn.parallel.vocabulary import whole_vocabulary


@dataclass(frozen=True)
class GivenRules:
    """Rules of a round (``round.Rules``).

    deletions  [B, T] bool
    counts     [B, G] masks in the gaps of the skeleton; None: the inserter's most likely ones
    writable   [V] bool: what may be written; None: every token
    filler     whose filler writes; None: the model's own
    told       [B, T] the draft's ids, if inserter and filler are to know what was deleted, as they do where the model
               mends a text; None: they are not
    """

    model: DualMask
    deletions: Tensor
    counts: Tensor | None = None
    writable: Tensor | None = None
    filler: DualMask | None = None
    told: Tensor | None = None

    def delete(self) -> Tensor:
        return self.deletions

    def count(self, remainder: Remainder) -> Tensor:
        if self.counts is not None:
            return self.counts
        inserter = self.model.count(remainder.skeleton, told=self._told_gaps(remainder))
        return inserter.gap_logits.argmax(-1) * inserter.gap_present

    def _told_gaps(self, remainder: Remainder) -> ToldGaps | None:
        if self.told is None:
            return None
        gaps = told_gaps(remainder, self._everywhere(), self.model.config.told_pieces)
        return gaps._replace(pieces=self.model.recall(tokens_at(self.told, gaps.pieces)))

    def _replaced(self, opened: Opened, model: DualMask) -> Tensor | None:
        if self.told is None:
            return None
        return tokens_at(self.told, told_masks(opened, self._everywhere(), model.config.told_pieces))

    def _everywhere(self) -> Tensor:
        """[B] bool"""
        return torch.ones_like(self.deletions[:, 0])

    def fill(self, opened: Opened) -> Tensor:
        masked, model = opened.masked, self.filler or self.model
        slot = masked.is_mask.flatten().nonzero().squeeze(1)
        logits = model.fill(masked.tokens, masked.length, slot, self._replaced(opened, model))
        logits = whole_vocabulary(logits, model.vocab_size)
        if self.writable is not None:
            logits = logits.masked_fill(~self.writable, float("-inf"))
        return masked.tokens.flatten().scatter(0, slot, logits.argmax(-1)).view_as(masked.tokens)
