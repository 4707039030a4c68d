"""Corruption of texts: tokens are substituted, dropped, doubled, swapped, misspelt or confused, spans are shuffled.

Each token emits 0, 1 or more tokens; a permutation gives their order and the cumulative sum of the emissions their
positions. A batch is thus corrupted by index arithmetic only.
"""

# B batch, T tokens, V vocabulary, N variants, P most tokens that one token emits

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.config.corruption import KINDS, CorruptionConfig
from dualmask.core import noise
from dualmask.core.batch import deletable, present
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import PAD_ID

SUBSTITUTE, DROP, DOUBLE, SWAP, TYPO, CONFUSE = range(len(KINDS))
UNHIT = -1
LOOKED_UP = ("typo", "confuse")  # in ErrorTables; they write several tokens in the place of one


@dataclass(frozen=True)
class Wrong:
    """What may be written in the place of each token."""

    ids: Tensor  # [B, T, P], -1 behind
    number: Tensor  # [B, T] of them; 0: nothing is written; -1: there is no wrong form of the token


def corrupt(
    tokens: Tensor, length: Tensor, key: Tensor, step: int, config: CorruptionConfig, errors: ErrorTables | None
) -> tuple[Tensor, Tensor]:
    """Corrupts every row of ``tokens`` [B, T]; returns tokens [B, T] (padded with PAD) and their length [B].

    In each row, a share of the inner tokens, uniform in [rate_low, rate_high], is corrupted, each by one kind drawn by
    weight. A result never exceeds T: insertions that would not fit are undone at random positions. Without a table of
    misspellings, without one of the token, or without room, a typo is a substitution. Where there is no confusion, the
    token stays as it is: a random token is no error that people make. Fewer tokens than the rate are then hit.
    """
    errors = errors or ErrorTables()
    inner = deletable(length, tokens.shape[1])
    kind = _hits(inner, key, step, config)
    kind, order = _swaps(kind, inner)
    misspelt, confused = _misspelt(tokens, key, step, errors), _confused(tokens, key, step, errors)
    kind = torch.where((kind == TYPO) & (misspelt.number < 0), SUBSTITUTE, kind)
    kind = torch.where((kind == CONFUSE) & (confused.number < 0), UNHIT, kind)
    doubled = _doubled(tokens, key, step, config.double_most)
    wrong = _either(kind == CONFUSE, confused, _either(kind == DOUBLE, doubled, misspelt))
    kind = _fit(kind, wrong, length, key, step)
    emitted = _emissions(tokens, _others(tokens, inner, key, step), wrong, kind)
    number = _number(kind, wrong) * present(length, tokens.shape[1])
    order = order.gather(1, _shuffle(inner, key, step, config))
    return _pack(emitted.gather(1, order[..., None].expand_as(emitted)), number.gather(1, order))


def by_weight(draw: Tensor, weights: Sequence[float]) -> Tensor:
    """int64, shaped like ``draw`` (uniform in (0, 1)): an index for each draw, in proportion to ``weights``."""
    *bounds, total = accumulate(weights)
    return torch.bucketize(draw.double(), torch.tensor(bounds, dtype=torch.float64, device=draw.device) / total)


def _hits(inner: Tensor, key: Tensor, step: int, config: CorruptionConfig) -> Tensor:
    """[B, T] the kind of corruption of each token, or UNHIT."""
    width = inner.shape[1]
    rate = config.rate_low + (config.rate_high - config.rate_low) * noise.uniform(key, "corruption rate", step)
    hit = (noise.uniform(key, "corruption hit", step, width) < rate[:, None]) & inner
    kind = by_weight(noise.uniform(key, "corruption kind", step, width), [getattr(config, name) for name in KINDS])
    return torch.where(hit, kind, UNHIT)


def _swaps(kind: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """The kinds [B, T] without those of swapped tokens, and the order [B, T] of the tokens after swapping.

    In a run of tokens to be swapped, every other one is swapped with its right neighbour.
    """
    swap = kind == SWAP
    position = torch.arange(kind.shape[1], device=kind.device).expand_as(kind)
    run_start = torch.where(swap, -1, position).cummax(1).values + 1
    left = swap & ((position - run_start) % 2 == 0) & pad(inner, (0, 1))[:, 1:]
    right = pad(left, (1, 0))[:, :-1]
    return torch.where(swap | right, UNHIT, kind), position + left.long() - right.long()


def _others(tokens: Tensor, inner: Tensor, key: Tensor, step: int) -> Tensor:
    """[B, T] for each inner token another one of the same text with a different id; itself if there is none."""
    behind = torch.iinfo(tokens.dtype).max
    ranked = tokens.masked_fill(~inner, behind).sort(1).values
    low = torch.searchsorted(ranked, tokens)
    equal = torch.searchsorted(ranked, tokens, right=True) - low
    candidates = inner.sum(1, keepdim=True) - equal
    draw = (noise.uniform(key, "corruption source", step, tokens.shape[1]) * candidates).long()
    other = ranked.gather(1, torch.where(draw < low, draw, draw + equal))
    return torch.where(inner & (candidates > 0), other, tokens)


def _misspelt(tokens: Tensor, key: Tensor, step: int, errors: ErrorTables) -> Wrong:
    """One of the misspellings of each token."""
    if errors.typos is None:
        return _nothing(tokens)
    variant = _variant(key, "corruption typo", step, tokens.shape[1], errors.typos.shape[1])
    ids = errors.typos.to(tokens.device)[tokens, variant]
    number = (ids >= 0).sum(2)
    return Wrong(ids, torch.where(number > 0, number, -1))


def _confused(tokens: Tensor, key: Tensor, step: int, errors: ErrorTables) -> Wrong:
    """One of the confusions of each token that stands where it may be confused."""
    if errors.confusions is None:
        return _nothing(tokens)
    table = errors.confusions.to(tokens.device)
    variant = _variant(key, "corruption confusion", step, tokens.shape[1], table.count.shape[1])
    number = torch.where(table.fits(tokens), table.count[tokens, variant], -1)
    return Wrong(table.ids[tokens, variant], number)


def _doubled(tokens: Tensor, key: Tensor, step: int, most: int) -> Wrong:
    """Each token and, once more, the block of 1 … ``most`` tokens that ends with it."""
    width = tokens.shape[1]
    position = torch.arange(width, device=tokens.device).expand_as(tokens)
    size = torch.ones_like(tokens)
    if most > 1:
        size += (noise.uniform(key, "corruption block", step, width) * most).long()
        size = torch.minimum(size, position.clamp_min(1))  # BOS is not in it
    slot = torch.arange(most + 1, device=tokens.device)
    source = position[..., None] - torch.where(slot > 0, size[..., None] - slot, 0)
    ids = tokens.gather(1, source.clamp(0, width - 1).flatten(1)).view(*tokens.shape, most + 1)
    return Wrong(torch.where(slot <= size[..., None], ids, -1), size + 1)


def _nothing(tokens: Tensor) -> Wrong:
    return Wrong(tokens.new_full((*tokens.shape, 1), -1), torch.full_like(tokens, -1))


def _variant(key: Tensor, stream: str, step: int, width: int, variants: int) -> Tensor:
    """[B, T] a column of a table for each token."""
    return (noise.uniform(key, stream, step, width) * variants).long()


def _either(condition: Tensor, yes: Wrong, no: Wrong) -> Wrong:
    most = max(yes.ids.shape[2], no.ids.shape[2])
    ids, others = (pad(wrong.ids, (0, most - wrong.ids.shape[2]), value=-1) for wrong in (yes, no))
    return Wrong(torch.where(condition[..., None], ids, others), torch.where(condition, yes.number, no.number))


def _written(kind: Tensor) -> Tensor:
    """[B, T] bool: what is written has several tokens, or none."""
    return (kind == TYPO) | (kind == CONFUSE) | (kind == DOUBLE)


def _number(kind: Tensor, wrong: Wrong) -> Tensor:
    """[B, T] number of tokens that each token emits."""
    return torch.where(_written(kind), wrong.number, 1 - (kind == DROP).long())


def _fit(kind: Tensor, wrong: Wrong, length: Tensor, key: Tensor, step: int) -> Tensor:
    """The kinds [B, T] without doublings and wrong forms that do not fit into T; which ones are undone is random."""
    width = kind.shape[1]
    number = _number(kind, wrong) * present(length, width)
    room = width - number.clamp_max(1).sum(1, keepdim=True)
    extra = (number - 1).clamp_min(0)
    order = noise.uniform(key, "corruption room", step, width).argsort(1)
    taken = torch.zeros_like(extra).scatter(1, order, extra.gather(1, order).cumsum(1))
    undone = (extra > 0) & (taken > room)
    return torch.where(undone, torch.where(kind == TYPO, SUBSTITUTE, UNHIT), kind)


def _emissions(tokens: Tensor, other: Tensor, wrong: Wrong, kind: Tensor) -> Tensor:
    """[B, T, P] the tokens that each token emits; the first ``_number`` of them are valid."""
    plain = torch.where(kind == SUBSTITUTE, other, tokens)
    emitted = pad(plain[..., None], (0, wrong.ids.shape[2] - 1), value=PAD_ID)
    return torch.where(_written(kind)[..., None], wrong.ids, emitted)


def _shuffle(inner: Tensor, key: Tensor, step: int, config: CorruptionConfig) -> Tensor:
    """[B, T] a permutation that shuffles one span of 2 + geometric tokens in a ``shuffle_share`` of the rows."""
    width, total = inner.shape[1], inner.sum(1)
    position = torch.arange(width, device=inner.device).expand_as(inner)
    more = torch.tensor((config.mean_span - 2) / (config.mean_span - 1), device=inner.device)
    draw = noise.uniform(key, "corruption span", step, 3)
    size = torch.minimum(2 + (draw[:, 0].log() / more.log()).long(), total)
    start = 1 + (draw[:, 1] * (total - size + 1)).long()
    size = torch.where(draw[:, 2] < config.shuffle_share, size, 0)
    span = (position >= start[:, None]) & (position < (start + size)[:, None]) & inner
    drawn = start[:, None] + noise.uniform(key, "corruption shuffle", step, width) * size[:, None]
    return torch.where(span, drawn, position.float()).argsort(dim=1, stable=True)


def _pack(emitted: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """The first ``number`` [B, T] of the tokens ``emitted`` [B, T, P], concatenated to [B, T] with PAD; lengths [B]."""
    rows, width, most = emitted.shape
    slot = torch.arange(most, device=emitted.device)
    position = (number.cumsum(1) - number)[..., None] + slot
    position = torch.where(slot < number[..., None], position, width)
    packed = emitted.new_full((rows, width + 1), PAD_ID).scatter(1, position.flatten(1), emitted.flatten(1))
    return packed[:, :width], number.sum(1)
