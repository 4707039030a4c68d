"""Decoder-1, the Mask Picker: which tokens can be deleted, given the share that is to be kept."""

# B batch, T tokens, D width

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualmask.config.schema import ModelConfig
from dualmask.layers.trunk import Trunk
from dualmask.ops import deletion
from dualmask.ops.estimators import calibrate, relaxed_keep, straight_through
from dualmask.ops.gaps import contiguous_positions
from dualmask.outputs import PickerOut

RATE_FEATURES = 16


def rate_features(keep_rate: Tensor) -> Tensor:
    """[B, RATE_FEATURES] sines and cosines of the asked keep rate [B]."""
    frequency = math.pi * 2.0 ** torch.arange(RATE_FEATURES // 2, device=keep_rate.device)
    angle = keep_rate[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


@dataclass(frozen=True)
class DeleteLogits:
    """What the picker thinks before anything is decided (see ``ops.deletion``)."""

    alone: Tensor  # [B, T]
    beside: Tensor  # [B, T, 2·REACH]

    def given(self, deleted: Tensor) -> Tensor:
        return deletion.given_neighbours(self.alone, self.beside, deleted)


class Picker(nn.Module):
    def __init__(self, config: ModelConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.picker_layers, activation_checkpointing=activation_checkpointing)
        self.rate = nn.Linear(RATE_FEATURES, config.hidden)
        self.opinion = nn.Linear(1, config.hidden)
        self.trust = nn.Parameter(torch.ones(1))  # of the filler's own logit: the picker starts as the greedy heuristic
        self.delete = nn.Linear(config.hidden, 1 + len(deletion.OFFSETS))
        # a copied trunk must first do what it did before
        nn.init.zeros_(self.rate.weight)
        nn.init.zeros_(self.rate.bias)
        nn.init.zeros_(self.opinion.weight)
        nn.init.zeros_(self.opinion.bias)
        nn.init.normal_(self.delete.weight, std=config.init_std)
        nn.init.zeros_(self.delete.bias)

    def forward(self, x_BTD: Tensor, present: Tensor, keep_rate: Tensor, filler_prob: Tensor) -> DeleteLogits:
        """Delete logits in float32 from the embeddings of the whole text, the asked keep rate [B] and the filler's
        probability of each token [B, T] (see ``ops.probe``; all 0.5 where it was not asked)."""
        believed = torch.logit(filler_prob.float(), eps=1e-4)
        rate = self.rate(rate_features(keep_rate).to(x_BTD.dtype))
        position = contiguous_positions(present)
        opinion = self.opinion(believed[..., None].to(x_BTD.dtype))
        h_BTD = self.trunk(x_BTD + rate[:, None] + opinion, position, present)
        logits = self.delete(h_BTD).float()
        return DeleteLogits(logits[..., 0] + self.trust * believed, logits[..., 1:])


@torch.no_grad()
def decide(
    config: ModelConfig, logits: DeleteLogits, deletable: Tensor, keep_rate: Tensor, spread: Tensor, temperature: float
) -> Tensor:
    """[B, T] bool: what the picker deletes. ``spread`` [B, T]: logistic noise, scaled by the temperature (0: none).

    ``budget``: exactly the asked number, chosen together; ``free``: each token for itself, the asked share on average.
    """
    alone = logits.alone + temperature * spread
    if config.selection == "budget":
        return deletion.choose(alone, logits.beside, deletable, deletion.budget(deletable, keep_rate))
    return (alone > calibrate(-logits.alone, deletable, keep_rate)) & deletable


def describe(
    config: ModelConfig,
    delete_logit: Tensor,
    deleted: Tensor,
    deletable: Tensor,
    keep_rate: Tensor,
    spread: Tensor,
    temperature: float,
) -> PickerOut:
    """The decision as the losses see it: probabilities, and the decision with the estimator's gradient.

    The keep probability is calibrated per sequence to the asked rate, so that the label-taught logit may keep its own
    meaning (probability of being restored).
    """
    keep_logit = calibrate(-delete_logit, deletable, keep_rate) - delete_logit
    relaxed = relaxed_keep(config.estimator, keep_logit, -spread, max(temperature, 0.1))
    relaxed = torch.where(deletable, relaxed, 1.0)
    keep_prob = torch.where(deletable, torch.sigmoid(keep_logit), 1.0)
    return PickerOut(delete_logit, keep_prob, straight_through((~deleted).float(), relaxed))
