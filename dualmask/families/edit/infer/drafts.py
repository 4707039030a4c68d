"""A batch of drafts in progress: tokens, and what is known of each of them, carried through rounds."""

# N drafts, L positions, W positions behind a round, G gaps = L-1 (gap j stands behind position j)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.batch import deletable, present
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.families.edit.infer.budget import TEXT
from dualmask.families.edit.infer.protect import Protection
from dualmask.families.edit.infer.request import Request
from dualmask.families.edit.round import Opened, Remainder, take
from dualmask.ops import gaps

CLOSED = -1


@dataclass(frozen=True)
class Drafts:
    """
    tokens, length  [N, L], [N] as in ``batch.Batch``
    key             [N] random key: draws depend on it and on the position, on nothing else
    locked          [N, L] bool: never deleted
    region          [N, L] int64: the budget region of the gap behind the token, or CLOSED
    spaced          [N, L] bool: what is inserted right behind the token must begin with a space, and so must
                    what stands there when tokens are deleted
    written_prob    [N, L] probability with which an earlier round wrote the token; 1: it was given
    """

    tokens: Tensor
    length: Tensor
    key: Tensor
    locked: Tensor
    region: Tensor
    spaced: Tensor
    written_prob: Tensor

    @property
    def present(self) -> Tensor:
        return present(self.length, self.tokens.shape[1])

    @property
    def deletable(self) -> Tensor:
        return deletable(self.length, self.tokens.shape[1]) & ~self.locked

    def rows(self, index: Sequence[int]) -> Drafts:
        """Some of the drafts, padding cut."""
        rows = torch.tensor(index, device=self.tokens.device)
        width = int(self.length[rows].max())
        known = (self.locked, self.region, self.spaced, self.written_prob)
        return Drafts(
            self.tokens[rows, :width], self.length[rows], self.key[rows], *(each[rows, :width] for each in known)
        )

    def opened(self, opened: Opened) -> Drafts:
        """The drafts with the [MASK]s of a round in place. A mask belongs to the region of its gap."""
        masked, kept = opened.masked, ~opened.masked.is_mask
        return Drafts(
            masked.tokens,
            masked.length,
            self.key,
            opened.carry(self.locked) & kept,
            opened.carry(self.region),
            opened.carry(self.spaced) & kept,
            opened.carry(self.written_prob),
        )

    def open_gaps(self, remainder: Remainder, lexicon: Lexicon) -> tuple[Tensor, Tensor]:
        """Of each gap of the skeletons [N, G]: its budget region; and whether masks may go there: neither inside a
        locked range nor inside a character."""
        skeleton = remainder.skeleton
        region = take(self.region, remainder.source)[:, :-1]
        inside = lexicon.continuation[skeleton.tokens[:, 1:]]
        exists = gaps.gap_present(skeleton.length, skeleton.tokens.shape[1])
        return region, exists & ~inside & (region != CLOSED)


def start(requests: Sequence[Request], device: torch.device) -> Drafts:
    width = max(len(request.ids) for request in requests) + 2
    tokens = torch.full((len(requests), width), PAD_ID)
    locked = torch.zeros(tokens.shape, dtype=torch.bool)
    region = torch.zeros_like(tokens)
    spaced = torch.zeros_like(locked)
    for row, request in enumerate(requests):
        tokens[row, : len(request.ids) + 2] = torch.tensor([BOS_ID, *request.ids, EOS_ID])
        if request.mode == "infill" or request.continues:
            region[row] = CLOSED
        if request.continues:
            region[row, len(request.ids)] = TEXT
            spaced[row, len(request.ids)] = request.new_word
        for number, hole in enumerate(request.holes, 1):
            region[row, hole.position] = number
            spaced[row, hole.position] = hole.spaced
        protection = request.protection or Protection()
        for first, end in (*request.locked, *protection.ranges):
            locked[row, first + 1 : end + 1] = True
            region[row, first + 1 : end] = CLOSED
        if protection.front:
            region[row, 0] = CLOSED
        for position in protection.apart:
            spaced[row, position + 1] = True
    length = torch.tensor([len(request.ids) + 2 for request in requests])
    key = torch.tensor([request.sampling.seed for request in requests])
    written_prob = torch.ones(tokens.shape)
    planes = (tokens, length, key, locked, region, spaced, written_prob)
    return Drafts(*(plane.to(device) for plane in planes))
