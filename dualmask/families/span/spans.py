"""Spans: where one is cut from a text, which of its places are written next, and when refinement stops."""

# B batch, T tokens, K places of a span, N most steps

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import EOS_ID
from dualmask.ops import deletion
from dualmask.ops.estimators import straight_through


@dataclass(frozen=True)
class Spans:
    """The part of each text that is to be written, given what stands in front of it."""

    prompt_length: Tensor  # [B] tokens in front, BOS included
    target: Tensor  # [B, K] ids; EOS behind the end of the text

    @property
    def position(self) -> Tensor:
        """[B, K] float: places in the text."""
        return positions(self.prompt_length, self.target.shape[1])


def positions(prompt_length: Tensor, width: int) -> Tensor:
    """[B, K] float: the ``width`` = K places behind ``prompt_length`` [B] tokens."""
    return (prompt_length[:, None] + torch.arange(width, device=prompt_length.device)).float()


def cut(batch: Batch, step: int, width: int) -> Spans:
    """A span of ``width`` = K places of each text, beginning at any place behind BOS, by the text's key."""
    draw = noise.uniform(batch.key, "prompt length", step)
    prompt_length = 1 + (draw * (batch.length - 1)).long()
    place = prompt_length[:, None] + torch.arange(width, device=draw.device)
    inside = place < batch.length[:, None]
    target = batch.tokens.gather(1, place.clamp_max(batch.tokens.shape[1] - 1))
    return Spans(prompt_length, torch.where(inside, target, EOS_ID))


def places_a_step(width: int, steps: int) -> int:
    """M = ⌈K / g_max⌉: so that ``steps`` steps write every place."""
    return -(-width // steps)


def pick(score: Tensor, open_: Tensor, number: int | Tensor) -> Tensor:
    """[B, K] bool: the ``number`` open places with the highest ``score`` [B, K]; the left one of equals."""
    number = torch.as_tensor(number, device=score.device).expand(len(score))
    return deletion.best_first(score.float(), open_, torch.minimum(number, open_.sum(1)))


def mean_over(value: Tensor, where: Tensor) -> Tensor:
    """[B] mean of ``value`` [B, K] over the places ``where``; 0 where there are none."""
    return (value * where).sum(1) / where.sum(1).clamp_min(1)


def drawn_continue(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """[B, N] in {0, 1}: whether to go on, from logits and Gumbel noise [B, N, 2]; straight-through estimator."""
    relaxed = ((logits + gumbel) / temperature).softmax(-1)[..., 1]
    return straight_through((relaxed > 0.5).float().detach(), relaxed)


def stop_weights(go_on: Tensor) -> Tensor:
    """[B, N] probability of stopping behind each step: Π_{s<t} c_s · (1 − c_t), c = ``go_on`` [B, N].

    The last step always stops.
    """
    go_on = torch.cat([go_on[:, :-1], torch.zeros_like(go_on[:, :1])], dim=1)
    reached = torch.cat([torch.ones_like(go_on[:, :1]), go_on[:, :-1].cumprod(1)], dim=1)
    return reached * (1 - go_on)


def expected_steps(weights: Tensor) -> Tensor:
    """[B] E[g] = Σ_t Π_{s<t} c_s, from the ``stop_weights`` [B, N] (method.md R7)."""
    return (weights * torch.arange(1, weights.shape[1] + 1, device=weights.device)).sum(1)
