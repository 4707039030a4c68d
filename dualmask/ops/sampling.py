"""Choosing tokens for [MASK] slots, and which of them stay. Randomness comes in as uniform numbers.

Which tokens may be drawn at all is decided in one place, ``may_be_drawn``, for every family of models: a truncation
rule is a function in TRUNCATIONS under the name of its field in ``SamplingParams``.
"""

# M slots, V vocabulary, N requests or sequences, L positions

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dualmask.core.sampling import SamplingParams


def nucleus(prob: Tensor, top_p: Tensor) -> Tensor:
    """[M, V] bool: the smallest set of most likely tokens that holds ``top_p`` [M] (Holtzman et al. 2020)."""
    ordered, token = prob.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(prob, dtype=torch.bool).scatter(-1, token, before < top_p[:, None])


def near_likeliest(prob: Tensor, min_p: Tensor) -> Tensor:
    """[M, V] bool: at least ``min_p`` [M] times as probable as the likeliest token (Nguyen et al. 2024)."""
    return prob >= min_p[:, None] * prob.amax(-1, keepdim=True)


# (probabilities [M, V], limit [M]) → [M, V] bool: tokens that may be drawn, always the likeliest among them. A rule
# whose field stands at its default is off.
TRUNCATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"top_p": nucleus, "min_p": near_likeliest}

DTYPES = {float: torch.float32, int: torch.int64, bool: torch.bool}
DEFAULTS = {parameter.name: parameter.default for parameter in fields(SamplingParams)}


@dataclass(frozen=True)
class SamplingBatch:
    """The parameters of N requests as tensors, a row each. ``rows`` turns them into those of M slots."""

    temperature: Tensor  # [N] float32
    seed: Tensor  # [N] int64
    fill_steps: Tensor  # [N] int64
    remask: Tensor  # [N] bool
    limits: Mapping[str, Tensor]  # [N] float32 of each rule in TRUNCATIONS that any request uses

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> SamplingBatch:
        def column(name: str) -> Tensor:
            return _column([getattr(one, name) for one in params], DTYPES[type(DEFAULTS[name])], device)

        used = [name for name in TRUNCATIONS if any(getattr(one, name) != DEFAULTS[name] for one in params)]
        return cls(
            temperature=column("temperature"),
            seed=column("seed"),
            fill_steps=column("fill_steps"),
            remask=column("remask"),
            limits={name: column(name) for name in used},
        )

    def rows(self, index: Tensor) -> SamplingBatch:
        """Of the requests ``index`` [M]."""
        return SamplingBatch(
            temperature=self.temperature[index],
            seed=self.seed[index],
            fill_steps=self.fill_steps[index],
            remask=self.remask[index],
            limits={name: limit[index] for name, limit in self.limits.items()},
        )


def _column(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[N] ``values``. Equal ones, as in training, are written by the device itself: nobody waits for a copy to it."""
    if len(set(values)) == 1:
        return torch.full((len(values),), values[0], dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, device=device)


def choose(logits: Tensor, allowed: Tensor, uniform: Tensor, sampling: SamplingBatch) -> tuple[Tensor, Tensor]:
    """Token [M] and confidence [M] for each slot: the model's probability of the chosen token among the allowed ones.

    logits [M, V], allowed [M, V] bool (at least one a slot), uniform [M] in (0, 1), sampling: of the M slots.
    """
    logits = logits.float().masked_fill(~allowed, float("-inf"))
    prob = logits.softmax(-1)
    token = logits.argmax(-1)
    if (sampling.temperature > 0).any():
        token = torch.where(sampling.temperature > 0, _draw(logits, uniform, sampling), token)
    return token, prob.gather(-1, token[:, None]).squeeze(-1)


def may_be_drawn(prob: Tensor, sampling: SamplingBatch) -> Tensor:
    """[M, V] bool: tokens that no truncation rule refuses. Each rule reads the whole tempered distribution ``prob``
    [M, V], so that their order does not matter."""
    kept = torch.ones_like(prob, dtype=torch.bool)
    for name, limit in sampling.limits.items():
        off = limit == DEFAULTS[name]
        kept &= TRUNCATIONS[name](prob, limit) | off[:, None]
    return kept


def _draw(logits: Tensor, uniform: Tensor, sampling: SamplingBatch) -> Tensor:
    """[M] from what is left of the tempered distribution, by inverting its cumulative probability."""
    prob = (logits / sampling.temperature.clamp_min(1e-6)[:, None]).softmax(-1)
    if sampling.limits:
        prob = prob.masked_fill(~may_be_drawn(prob, sampling), 0.0)
    reached = prob.cumsum(-1)
    token = (reached < uniform[:, None] * reached[:, -1:]).sum(-1)
    return token.clamp_max(logits.shape[-1] - 1)


def still_open(slots: Tensor, step: int, steps: Tensor) -> Tensor:
    """[N] how many of ``slots`` [N] are masks again after fill step ``step`` (0-based) of ``steps`` [N].

    The cosine schedule of MaskGIT (Chang et al. 2022), with at least one slot decided a step and none left at the end.
    """
    progress = ((step + 1) / steps).clamp_max(1.0)
    remaining = torch.floor(slots * torch.cos(progress * math.pi / 2) + 1e-4).long()
    return torch.minimum(remaining, (slots - step - 1).clamp_min(0)) * (progress < 1)


def least_confident(confidence: Tensor, among: Tensor, number: Tensor) -> Tensor:
    """[N, L] bool: the ``number`` [N] positions among ``among`` with the lowest confidence; rightmost first."""
    ranked = confidence.masked_fill(~among, float("inf")).flip(1).argsort(dim=1, stable=True)
    rank = ranked.argsort(1).flip(1)
    return (rank < number[:, None]) & among
