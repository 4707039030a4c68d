"""How the tokens of a batch lie in memory while a trunk reads them, and how its texts are kept apart there.

A layout is chosen once a pass, by ``lay_out``, and with it the form of attention. Everything else in a trunk works
token by token and need not know which texts there are.
"""

# B texts, T places and S keys of a row, N present tokens, W longest text, D width, H heads of this rank, E head width

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention

from dualmask.core import host
from dualmask.core.batch import Counts
from dualmask.nn.cache import Appendable, TrunkCache


class Layout(Protocol):
    def lay(self, x: Tensor) -> Tensor:
        """[…, D] in this layout from rows [B, T, D]; of positions […] from [B, T]."""
        ...

    def rows(self, x: Tensor) -> Tensor:
        """[B, T, D] from this layout […, D]. What stands at padding means nothing."""
        ...

    def spaced(self, x: Tensor, left: int, right: int, cached: Appendable | None = None) -> Tensor:
        """[…, left + M + right, D]: the tokens […, D] with so many zeros between texts that ``left`` + ``right``
        neighbours of each are of its own text. ``cached``: the tokens in front of these."""
        ...

    def unspaced(self, x: Tensor, left: int, right: int) -> Tensor:
        """The tokens […, D] from […, M, D], the places of ``spaced`` that have all their neighbours."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cached: Appendable | None = None) -> Tensor:
        """[…, H, E] softmax attention of each token within its text, from queries, keys and values […, H, E].
        ``cached``: keys and values of the tokens in front of these."""
        ...


@dataclass(frozen=True)
class PaddedRows:
    """A row of T places for each text, as the batch has them: padding is computed, and not attended to."""

    present: Tensor | None = None  # [B, T] bool; None: there is no padding
    mask: Tensor | None = None  # [B, 1, 1 or T, S] bool: what each token attends to
    causal: bool = False  # without a mask: each token attends to what is in front of it and to itself

    def lay(self, x: Tensor) -> Tensor:
        return x

    def rows(self, x: Tensor) -> Tensor:
        return x

    def spaced(self, x: Tensor, left: int, right: int, cached: Appendable | None = None) -> Tensor:
        width = x.shape[1]
        x = x if self.present is None else x * self.present[..., None]
        seen = (x if cached is None else cached.append(x))[:, -(width + left) :]
        return pad(seen, (0, 0, width + left - seen.shape[1], right))

    def unspaced(self, x: Tensor, left: int, right: int) -> Tensor:
        return x

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cached: Appendable | None = None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if cached is not None:
            k, v = cached.append(torch.stack([k, v]))
        return scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal).transpose(1, 2)


@dataclass(frozen=True)
class Flat:
    """The N present tokens of all texts, one text behind the other: nothing is computed on padding (ModernBERT's
    unpadding, Warner et al. 2024)."""

    index: Tensor  # [N] place of each token in the flattened rows [B·T]
    text: Tensor  # [N] the text it belongs to
    padded: Tensor  # [N] its place in flattened rows [B·W], in which padding stands on the right
    starts: Tensor  # [B + 1] int32: where each text begins, and N
    shape: tuple[int, int]  # B, T
    longest: int  # W
    mask: Tensor | None  # [B, 1, 1, W] bool: keys in those rows; None: all of them, or attention is causal
    causal: bool

    @classmethod
    def of(cls, present: Tensor, lengths: Counts, *, right_padded: bool, causal: bool) -> Flat:
        """present [B, T] bool, and how many there are in each row, lengths [B], which tell the host all sizes.

        right_padded: else the tokens are searched for; on CUDA the host would wait for the result.
        """
        number, longest, (texts, width) = int(lengths.sum()), int(lengths.max()), present.shape
        count, row = present.sum(1), torch.arange(texts, device=present.device)
        starts = pad(count.cumsum(0), (1, 0))
        text = row.repeat_interleave(count, output_size=number)
        position = torch.arange(number, device=row.device) - starts.index_select(0, text)
        index = text * width + position if right_padded else present.flatten().nonzero().squeeze(1)
        mask = None
        if not causal and int(lengths.min()) < longest:
            mask = (torch.arange(longest, device=row.device) < count[:, None])[:, None, None]
        return cls(index, text, text * longest + position, starts.int(), (texts, width), longest, mask, causal)

    def lay(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.index)

    def rows(self, x: Tensor) -> Tensor:
        return _spread(x, self.index, self.shape[0] * self.shape[1]).view(*self.shape, x.shape[-1])

    def spaced(self, x: Tensor, left: int, right: int, cached: Appendable | None = None) -> Tensor:
        assert cached is None, "caches have rows"
        between = max(left, right)  # zeros that two texts side by side share
        places = left + len(x) + between * (self.shape[0] - 1) + right
        return _spread(x, left + self._apart(between), places)

    def unspaced(self, x: Tensor, left: int, right: int) -> Tensor:
        return x.index_select(0, self._apart(max(left, right)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cached: Appendable | None = None) -> Tensor:
        assert cached is None, "caches have rows"
        if has_kernel(q):
            window = (-1, 0 if self.causal else -1)
            return varlen_attn(q, k, v, self.starts, self.starts, self.longest, self.longest, window_size=window)
        rows = self.shape[0], self.longest, *q.shape[1:]
        # padded for this alone; the outputs of padding are not read, and causal attention does not look there
        q, k, v = (_spread(x, self.padded, rows[0] * rows[1]).view(rows).transpose(1, 2) for x in (q, k, v))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal)
        return mixed.transpose(1, 2).flatten(0, 1).index_select(0, self.padded)

    def _apart(self, between: int) -> Tensor:
        """[N] the place of each token where ``between`` places are free between texts."""
        return torch.arange(len(self.text), device=self.text.device) + between * self.text


def lay_out(present: Tensor, *, causal: bool, lengths: Counts | None = None, cache: TrunkCache | None = None) -> Layout:
    """How tokens of presence [B, T] bool are laid out, behind those of ``cache`` (causal only).

    lengths [B]: says that rows are padded on the right, and how far. Without it the host must read
    ``present``, which it does only where that is no wait; else padded rows and a mask are what is left.
    """
    right_padded = lengths is not None
    if lengths is None and host.readable(present):
        lengths = present.sum(1).numpy()
    full = lengths is not None and int(lengths.sum()) == present.numel()
    if cache is not None:
        return _rows_behind(cache, present, full, right_padded or full)
    if lengths is None:
        mask = causal_mask(present, present.shape[1]) if causal else key_mask(present)
        return PaddedRows(present, mask)
    return PaddedRows(causal=causal) if full else Flat.of(present, lengths, right_padded=right_padded, causal=causal)


def _rows_behind(cache: TrunkCache, present: Tensor, full: bool, right_padded: bool) -> PaddedRows:
    """Causal rows behind those of a cache, with no mask where these are the first tokens or the last one."""
    seen, width = cache.present.append(present[..., None]).squeeze(-1), present.shape[1]
    own = None if full else present
    if right_padded and seen.shape[1] == width:
        return PaddedRows(own, causal=True)
    if full and width == 1 and host.readable(seen) and bool(seen.all()):
        return PaddedRows(own)
    return PaddedRows(own, causal_mask(seen, width))


def has_kernel(q: Tensor) -> bool:
    """Whether torch's attention for texts of any lengths one behind the other takes such queries [N, H, E]."""
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


def key_mask(present: Tensor) -> Tensor:
    """[B, 1, 1, T] bool for attention; True for the keys that may be attended to."""
    return present[:, None, None, :].to(torch.bool)


def causal_mask(present: Tensor, width: int) -> Tensor:
    """[B, 1, T, S] bool: the last ``width`` = T of the tokens ``present`` [B, S] attend to themselves and to the left.

    Padding attends to itself too: the softmax of a row without keys would be NaN, and spread to other rows.
    """
    position = torch.arange(present.shape[1], device=present.device)
    query = position[-width:, None]
    return (((position < query) & present[:, None, :]) | (position == query))[:, None]


def _spread(x: Tensor, place: Tensor, places: int) -> Tensor:
    """[places, …] with x [N, …] at the places [N], and 0 elsewhere."""
    return x.new_zeros(places, *x.shape[1:]).index_copy(0, place, x)
