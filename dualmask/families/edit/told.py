"""What inserter and filler of a text that is mended are told of its deletions (docs/method.md, R17).

The inserter knows how many tokens were deleted from each gap, the r-th [MASK] of a gap the r-th of them. With
``model.told_pieces`` the inserter and every [MASK] of the gap know all of them: a misspelt word is several pieces
("re", "ci", "eve"), and its correction often a single one. Training, inference and evaluation ask here.
"""

# B batch, T tokens of the draft, G gaps = T-1, W tokens of the masked text, P pieces of a gap, D width

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dualmask.families.edit.round import Opened, Remainder, take
from dualmask.ops import gaps

NOT_TOLD = -1


class ToldGaps(NamedTuple):
    """Of the gaps of a skeleton."""

    number: Tensor  # [B, G] tokens deleted there; NOT_TOLD where that is not known
    pieces: Tensor  # [B, G, P] of the first P of them, from the left, the position in the draft or what was read there


class Hints(NamedTuple):
    """Of a masked text: embeddings of deleted tokens at the [MASK]s; 0 elsewhere, and where they are not known."""

    own: Tensor  # [B, W, D] the r-th token deleted from the gap, at its r-th [MASK]
    pieces: Tensor  # [B, W, P, D] the first P tokens deleted from the gap, at each [MASK]; [1, 1, P, D] if all are 0


def told_gaps(remainder: Remainder, told: Tensor, most: int) -> ToldGaps:
    """Numbers and draft positions of what was deleted, in the texts ``told`` [B] bool; ``most``: P."""
    number = torch.where(told[:, None], gaps.gap_counts(remainder.keep, remainder.deleted), NOT_TOLD)
    source = remainder.source
    place = source[:, :-1, None] + 1 + torch.arange(most, device=source.device)
    return ToldGaps(number, torch.where((place < source[:, 1:, None]) & told[:, None, None], place, NOT_TOLD))


def told_masks(opened: Opened, told: Tensor, most: int) -> Tensor:
    """[B, W, 1 + P] draft positions of the r-th token deleted from the gap of the r-th [MASK], and of the first P;
    NOT_TOLD where there is none, at kept tokens, and in texts that are not ``told`` [B] bool."""
    knows = (opened.masked.is_mask & told[:, None])[..., None]
    pieces = told_gaps(opened.remainder, told, most).pieces
    of_gap = take(pieces, opened.masked.gap.clamp(0, pieces.shape[1] - 1))
    return torch.where(knows, torch.cat([opened.replaced[..., None], of_gap], dim=2), NOT_TOLD)


def tokens_at(tokens: Tensor, place: Tensor) -> Tensor:
    """Ids of the draft ``tokens`` [B, T] at the positions ``place`` [B, X, P]; NOT_TOLD stays."""
    found = take(tokens, place.clamp_min(0).flatten(1)).view_as(place)
    return torch.where(place >= 0, found, NOT_TOLD)


def embeddings_at(x_BTD: Tensor, place: Tensor) -> Tensor:
    """[B, X, P, D] embeddings of the draft at the positions ``place`` [B, X, P], cut from the graph; 0 for NOT_TOLD."""
    found = take(x_BTD.detach(), place.clamp_min(0).flatten(1)).view(*place.shape, x_BTD.shape[2])
    return found * (place >= 0)[..., None]


def hints(embedding: Tensor) -> Hints:
    """Of the embeddings [B, W, 1 + P, D] of what ``told_masks`` names."""
    return Hints(embedding[:, :, 0], embedding[:, :, 1:])


def no_hints(x_BTD: Tensor, most: int) -> Hints:
    """Nothing is known of what was deleted; the maps of hints get a gradient all the same, as every module must."""
    return Hints(torch.zeros_like(x_BTD), x_BTD.new_zeros(1, 1, most, x_BTD.shape[2]))
