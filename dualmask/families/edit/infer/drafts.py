"""A batch of drafts in progress: tokens, and what is known of each of them, carried through deleting and inserting."""

# N drafts, L places, G gaps = L-1 (gap j stands behind place j)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.batch import deletable, present
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.families.edit.infer.request import Request
from dualmask.ops import gaps

CLOSED = -1


@dataclass(frozen=True)
class Drafts:
    """
    tokens, length  [N, L], [N] as in ``batch.Batch``
    key             [N] random key: draws depend on it and on the place, on nothing else
    locked          [N, L] bool: never deleted
    region          [N, L] int64: the budget region of the gap behind the token, or CLOSED
    spaced          [N, L] bool: what is inserted right behind the token must begin with a space
    sure            [N, L] probability with which an earlier round wrote the token; 1: it was given
    """

    tokens: Tensor
    length: Tensor
    key: Tensor
    locked: Tensor
    region: Tensor
    spaced: Tensor
    sure: Tensor

    @property
    def present(self) -> Tensor:
        return present(self.length, self.tokens.shape[1])

    @property
    def deletable(self) -> Tensor:
        return deletable(self.length, self.tokens.shape[1]) & ~self.locked

    def rows(self, index: Sequence[int]) -> Drafts:
        """Some of the drafts, padding cut."""
        pick = torch.tensor(index, device=self.tokens.device)
        width = int(self.length[pick].max())
        planes = (plane[pick, :width] for plane in (self.tokens, self.locked, self.region, self.spaced, self.sure))
        tokens, *known = planes
        return Drafts(tokens, self.length[pick], self.key[pick], *known)

    def drop(self, keep: Tensor) -> Drafts:
        """The skeletons: tokens where ``keep`` [N, L] holds, with what is known of them."""
        packed = gaps.drop(self.tokens, keep)
        locked, region, spaced = (
            gaps.drop(plane.long(), keep).tokens for plane in (self.locked, self.region, self.spaced)
        )
        sure = gaps.drop(self.sure, keep).tokens
        return Drafts(packed.tokens, packed.length, self.key, locked.bool(), region, spaced.bool(), sure)

    def open(self, count: Tensor) -> tuple[Drafts, Tensor]:
        """Opens ``count`` [N, G] masks; also [N, L'] bool where they are. A mask belongs to the region of its gap."""
        width = int((self.length + count.sum(1)).max())
        masked = gaps.insert(gaps.Skeleton(self.tokens, self.length), count, width)
        source = masked.gap.clamp_min(0)
        kept = ~masked.is_mask
        return Drafts(
            masked.tokens,
            masked.length,
            self.key,
            self.locked.gather(1, source) & kept,
            self.region.gather(1, source),
            self.spaced.gather(1, source) & kept,
            self.sure.gather(1, source),
        ), masked.is_mask

    def open_gaps(self, lexicon: Lexicon) -> Tensor:
        """[N, G] bool: masks may go there: neither inside a locked range nor inside a character."""
        inside = lexicon.continuation[self.tokens[:, 1:]]
        exists = gaps.gap_present(self.length, self.tokens.shape[1])
        return exists & ~inside & (self.region[:, :-1] != CLOSED)


def start(requests: Sequence[Request], device: torch.device) -> Drafts:
    width = max(len(request.ids) for request in requests) + 2
    tokens = torch.full((len(requests), width), PAD_ID)
    locked = torch.zeros(tokens.shape, dtype=torch.bool)
    region = torch.zeros_like(tokens)
    spaced = torch.zeros_like(locked)
    for row, request in enumerate(requests):
        tokens[row, : len(request.ids) + 2] = torch.tensor([BOS_ID, *request.ids, EOS_ID])
        if request.mode == "infill":
            region[row] = CLOSED
        for number, hole in enumerate(request.holes, 1):
            region[row, hole.position] = number
            spaced[row, hole.position] = hole.spaced
        for first, end in request.locked:
            locked[row, first + 1 : end + 1] = True
            region[row, first + 1 : end] = CLOSED
    length = torch.tensor([len(request.ids) + 2 for request in requests])
    key = torch.tensor([request.sampling.seed for request in requests])
    sure = torch.ones(tokens.shape)
    return Drafts(*(tensor.to(device) for tensor in (tokens, length, key, locked, region, spaced, sure)))
