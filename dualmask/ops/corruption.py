"""Making texts wrong: tokens substituted, left out, doubled, swapped or misspelt, and spans shuffled.

Each token emits 0, 1 or more tokens, a permutation says in which order, and the running sum of the emissions says
where. So a batch is corrupted by index arithmetic alone.
"""

# B batch, T tokens, V vocabulary, N variants, P most tokens that one token emits

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.config.corruption import CorruptionConfig
from dualmask.core import noise
from dualmask.core.batch import deletable, present
from dualmask.core.tokenizer import PAD_ID

KINDS = ("substitute", "drop", "double", "swap", "typo")
SUBSTITUTE, DROP, DOUBLE, SWAP, TYPO = range(len(KINDS))
UNHIT = -1


def corrupt(
    tokens: Tensor, length: Tensor, key: Tensor, step: int, how: CorruptionConfig, typos: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Corrupts every row of ``tokens`` [B, T]; returns tokens [B, T] (PAD behind) and their length [B].

    Of each row a share uniform in [rate_low, rate_high] of the inner tokens is hit, each by one kind drawn by weight.
    A result never exceeds T: of what lengthens a row, as much happens as finds room, at random places. ``typos`` is the
    table of ``dualmask.core.typos``; None, a token without a misspelling, or no room for it: substituted instead.
    """
    inner = deletable(length, tokens.shape[1])
    kind = _hits(inner, key, step, how)
    kind, order = _swaps(kind, inner)
    misspelt = _misspelt(tokens, key, step, typos)
    kind = torch.where((kind == TYPO) & (misspelt[..., 0] < 0), SUBSTITUTE, kind)
    kind = _fit(kind, misspelt, length, key, step)
    emitted = _emissions(tokens, _others(tokens, inner, key, step), misspelt, kind)
    number = _number(kind, misspelt) * present(length, tokens.shape[1])
    order = order.gather(1, _shuffle(inner, key, step, how))
    return _pack(emitted.gather(1, order[..., None].expand_as(emitted)), number.gather(1, order))


def by_weight(draw: Tensor, weights: Sequence[float]) -> Tensor:
    """int64, shaped like ``draw`` (uniform in (0, 1)): an index for each draw, in proportion to ``weights``."""
    *bounds, total = accumulate(weights)
    return torch.bucketize(draw.double(), torch.tensor(bounds, dtype=torch.float64, device=draw.device) / total)


def _hits(inner: Tensor, key: Tensor, step: int, how: CorruptionConfig) -> Tensor:
    """[B, T] what happens to each token: a kind, or UNHIT."""
    width = inner.shape[1]
    rate = how.rate_low + (how.rate_high - how.rate_low) * noise.uniform(key, "corruption rate", step)
    hit = (noise.uniform(key, "corruption hit", step, width) < rate[:, None]) & inner
    kind = by_weight(noise.uniform(key, "corruption kind", step, width), [getattr(how, name) for name in KINDS])
    return torch.where(hit, kind, UNHIT)


def _swaps(kind: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """The order [B, T] in which swapped neighbours stand, and the kinds without those of swapped tokens.

    Of a run of tokens to be swapped every other one changes places with its right neighbour.
    """
    swap = kind == SWAP
    place = torch.arange(kind.shape[1], device=kind.device).expand_as(kind)
    run_start = torch.where(swap, -1, place).cummax(1).values + 1
    left = swap & ((place - run_start) % 2 == 0) & pad(inner, (0, 1))[:, 1:]
    right = pad(left, (1, 0))[:, :-1]
    return torch.where(swap | right, UNHIT, kind), place + left.long() - right.long()


def _others(tokens: Tensor, inner: Tensor, key: Tensor, step: int) -> Tensor:
    """[B, T] for each inner token one from another place of its text, with another id; itself where there is none."""
    behind = torch.iinfo(tokens.dtype).max
    ranked = tokens.masked_fill(~inner, behind).sort(1).values
    low = torch.searchsorted(ranked, tokens)
    equal = torch.searchsorted(ranked, tokens, right=True) - low
    candidates = inner.sum(1, keepdim=True) - equal
    draw = (noise.uniform(key, "corruption source", step, tokens.shape[1]) * candidates).long()
    other = ranked.gather(1, torch.where(draw < low, draw, draw + equal))
    return torch.where(inner & (candidates > 0), other, tokens)


def _misspelt(tokens: Tensor, key: Tensor, step: int, typos: Tensor | None) -> Tensor:
    """[B, T, P] one of the misspellings of each token, -1 behind it."""
    if typos is None:
        return tokens.new_full((*tokens.shape, 1), -1)
    variant = (noise.uniform(key, "corruption typo", step, tokens.shape[1]) * typos.shape[1]).long()
    return typos.to(tokens.device)[tokens, variant]


def _number(kind: Tensor, misspelt: Tensor) -> Tensor:
    """[B, T] how many tokens each token emits."""
    plain = 1 - (kind == DROP).long() + (kind == DOUBLE).long()
    return torch.where(kind == TYPO, (misspelt >= 0).sum(2), plain)


def _fit(kind: Tensor, misspelt: Tensor, length: Tensor, key: Tensor, step: int) -> Tensor:
    """The kinds [B, T] without doublings and misspellings that find no room within T. All places have equal chances."""
    width = kind.shape[1]
    number = _number(kind, misspelt) * present(length, width)
    room = width - number.clamp_max(1).sum(1, keepdim=True)
    extra = (number - 1).clamp_min(0)
    turn = noise.uniform(key, "corruption room", step, width).argsort(1)
    taken = torch.zeros_like(extra).scatter(1, turn, extra.gather(1, turn).cumsum(1))
    undone = (extra > 0) & (taken > room)
    return torch.where(undone, torch.where(kind == TYPO, SUBSTITUTE, UNHIT), kind)


def _emissions(tokens: Tensor, other: Tensor, misspelt: Tensor, kind: Tensor) -> Tensor:
    """[B, T, P] what each token emits, as far as ``_number`` says."""
    plain = torch.where(kind == SUBSTITUTE, other, tokens)
    emitted = pad(torch.stack([plain, tokens], 2), (0, max(misspelt.shape[2] - 2, 0)), value=PAD_ID)
    misspelt = pad(misspelt, (0, emitted.shape[2] - misspelt.shape[2]), value=-1)
    return torch.where((kind == TYPO)[..., None], misspelt, emitted)


def _shuffle(inner: Tensor, key: Tensor, step: int, how: CorruptionConfig) -> Tensor:
    """[B, T] a permutation that shuffles one span, 2 + geometric tokens long, in ``shuffle_share`` of the rows."""
    width, total = inner.shape[1], inner.sum(1)
    place = torch.arange(width, device=inner.device).expand_as(inner)
    more = torch.tensor((how.mean_span - 2) / (how.mean_span - 1), device=inner.device)
    draw = noise.uniform(key, "corruption span", step, 3)
    size = torch.minimum(2 + (draw[:, 0].log() / more.log()).long(), total)
    start = 1 + (draw[:, 1] * (total - size + 1)).long()
    size = torch.where(draw[:, 2] < how.shuffle_share, size, 0)
    span = (place >= start[:, None]) & (place < (start + size)[:, None]) & inner
    drawn = start[:, None] + noise.uniform(key, "corruption shuffle", step, width) * size[:, None]
    return torch.where(span, drawn, place.float()).argsort(dim=1, stable=True)


def _pack(emitted: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """The first ``number`` [B, T] of the tokens ``emitted`` [B, T, P], one behind the other; PAD behind them."""
    rows, width, most = emitted.shape
    turn = torch.arange(most, device=emitted.device)
    place = (number.cumsum(1) - number)[..., None] + turn
    place = torch.where(turn < number[..., None], place, width)
    packed = emitted.new_full((rows, width + 1), PAD_ID).scatter(1, place.flatten(1), emitted.flatten(1))
    return packed[:, :width], number.sum(1)
