"""A chain of tokens behind a cache, with a branch behind each, in one pass (tree attention, Miao et al. 2023)."""

# N texts, S columns of the cache, C tokens of the chain, K tokens of a branch, M = C + C·K new tokens, D width

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.nn.cache import Appendable
from dualmask.nn.layout import PaddedRows


@dataclass(frozen=True)
class Branches(PaddedRows):
    """Rows of M new tokens (``nn.layout.Layout``): the chain, then the branch behind its first token, and so on. A
    token of a branch sees what is cached, the chain as far as the token its branch stands behind, and its branch up to
    itself."""

    reach: int = 0  # tokens to the left that a convolution reads
    neighbours: Tensor | None = None  # [N, P] columns of each part with ``reach`` tokens in front of it; -1: none
    places: Tensor | None = None  # [M] of the tokens among those whose neighbours are all there

    @classmethod
    def behind(cls, present: Tensor, chain: int, branch: int, reach: int) -> Branches:
        """present [N, S] bool: what of the cache there is; the other columns were given up."""
        rows, seen = present.shape
        device = present.device
        number = torch.arange(1, seen + 1, device=device) * present
        tail = pad(number, (reach, 0)).sort(1).values[:, -reach:] - 1  # the last columns that are there
        own = seen + torch.arange(chain + chain * branch, device=device)
        line = torch.cat([tail, own[:chain].expand(rows, -1)], 1)
        parts, places = [line], [torch.arange(chain, device=device)]
        offset = reach + chain
        for after, column in enumerate(own[chain:].view(chain, branch), 1):
            parts.append(torch.cat([line[:, after : after + reach], column.expand(rows, -1)], 1))
            places.append(offset + torch.arange(branch, device=device))
            offset += reach + branch
        shown = present[:, None].expand(-1, len(own), -1)
        mask = torch.cat([shown, _own_mask(chain, branch, device).expand(rows, -1, -1)], 2)[:, None]
        return cls(mask=mask, reach=reach, neighbours=torch.cat(parts, 1), places=torch.cat(places))

    def spaced(self, x: Tensor, left: int, right: int, cached: Appendable | None = None) -> Tensor:
        assert (left, right) == (self.reach, 0), "causal trunks only"
        assert cached is not None
        assert self.neighbours is not None
        whole, place = cached.append(x), self.neighbours[..., None]
        return whole.gather(1, place.clamp_min(0).expand(-1, -1, whole.shape[2])) * (place >= 0)

    def unspaced(self, x: Tensor, left: int, right: int) -> Tensor:
        assert self.places is not None
        return x.index_select(1, self.places)


def positions(start: Tensor, chain: int, branch: int) -> Tensor:
    """[N, M] float: positions of chain and branches behind ``start`` [N] tokens."""
    line = torch.arange(chain, device=start.device)
    ahead = line[:, None] + 1 + torch.arange(branch, device=start.device)
    return (start[:, None] + torch.cat([line, ahead.flatten()])).float()


def _own_mask(chain: int, branch: int, device: torch.device) -> Tensor:
    """[M, M] bool: which of the new tokens each of them sees."""
    line = torch.arange(chain, device=device)
    stem = torch.cat([line, line.repeat_interleave(branch)])  # the last token of the chain that each sees
    step = torch.cat([torch.full_like(line, -1), torch.arange(branch, device=device).repeat(chain)])  # -1: the chain
    on_chain = (step[None] < 0) & (stem[None] <= stem[:, None])
    on_branch = (step[None] >= 0) & (stem[None] == stem[:, None]) & (step[None] <= step[:, None])
    return on_chain | on_branch
