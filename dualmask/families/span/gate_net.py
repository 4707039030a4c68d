"""The GateNet of SpanFusionLM: from the mean entropy of a span to stop or go on (seed 004, §2)."""

# B batch

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dualmask.core import noise
from dualmask.families.span.config import SpanModelConfig
from dualmask.nn import initial
from dualmask.nn.hidden import mark

STOP, CONTINUE = 0, 1
BOUND = 2.0  # of either logit, softly: a gate that is sure for good would learn nothing more


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of each text's key: the same on every rank and in every repetition."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x_BD: Tensor, key: Tensor | None, stream: str, counter: int) -> Tensor:
        """``key`` [B] None: nothing is dropped."""
        if key is None or self.share == 0:
            return x_BD
        kept = noise.uniform(key, stream, counter, x_BD.shape[1]) >= self.share
        return x_BD * kept / (1 - self.share)


class GateNet(nn.Module):
    """(Linear → LayerNorm → ReLU → Dropout) twice → Linear."""

    def __init__(self, config: SpanModelConfig, vocab_size: int) -> None:
        super().__init__()
        width = config.gate_hidden
        self.greatest = math.log(vocab_size)
        self.first = nn.Linear(1, width)
        self.first_norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        mark(self.second.weight)
        self.second_norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2)
        self.dropout = KeyedDropout(config.gate_dropout)
        initial.begin(self.last.bias, initial.Constant(0.0))
        # the first bias is the place where a LayerNorm behind one input tells small from large: spread over [0, 1]
        sign = [1.0 if number % 2 == 0 else -1.0 for number in range(width)]
        initial.begin(self.first.weight, initial.Listed(tuple(sign)))
        spread = tuple(-one * number / max(width - 1, 1) for number, one in enumerate(sign))
        initial.begin(self.first.bias, initial.Listed(spread))

    def forward(self, entropy: Tensor, key: Tensor | None = None, counter: int = 0) -> Tensor:
        """[B, 2] logits of stop and continue, float32, from the mean entropy [B] in nats. ``key`` [B]: with dropout.

        The entropy is read as a share of the greatest possible one, ln V.
        """
        x_BD = (entropy / self.greatest)[:, None].to(self.first.weight.dtype)
        x_BD = self.dropout(torch.relu(self.first_norm(self.first(x_BD))), key, "gate dropout 1", counter)
        x_BD = self.dropout(torch.relu(self.second_norm(self.second(x_BD))), key, "gate dropout 2", counter)
        return softly_bounded(self.last(x_BD).float())


def softly_bounded(logits: Tensor) -> Tensor:
    return BOUND * torch.tanh(logits / BOUND)
