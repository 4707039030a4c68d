"""Decoder-1, the Mask Picker: which tokens can be deleted, given the share that is to be kept."""

# B batch, T tokens, D width

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dualmask.config.schema import ModelConfig
from dualmask.layers.trunk import Trunk
from dualmask.ops import deletion, noise
from dualmask.ops.estimators import calibrate, relaxed_keep, straight_through
from dualmask.ops.gaps import contiguous_positions
from dualmask.outputs import PickerOut

RATE_FEATURES = 16


def rate_features(keep_rate: Tensor) -> Tensor:
    """[B, RATE_FEATURES] sines and cosines of the asked keep rate [B]."""
    frequency = math.pi * 2.0 ** torch.arange(RATE_FEATURES // 2, device=keep_rate.device)
    angle = keep_rate[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Picker(nn.Module):
    def __init__(self, config: ModelConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.trunk = Trunk(config, config.picker_layers, activation_checkpointing=activation_checkpointing)
        self.rate = nn.Linear(RATE_FEATURES, config.hidden)
        self.delete = nn.Linear(config.hidden, 1)
        # a copied trunk must first do what it did before
        nn.init.zeros_(self.rate.weight)
        nn.init.zeros_(self.rate.bias)
        nn.init.normal_(self.delete.weight, std=config.init_std)
        nn.init.zeros_(self.delete.bias)

    def forward(self, x_BTD: Tensor, present: Tensor, keep_rate: Tensor) -> Tensor:
        """[B, T] delete logits in float32 from the embeddings of the whole text and the asked keep rate [B]."""
        rate = self.rate(rate_features(keep_rate).to(x_BTD.dtype))
        position = contiguous_positions(*present.shape, device=present.device)
        h_BTD = self.trunk(x_BTD + rate[:, None], position, present)
        return self.delete(h_BTD).squeeze(-1).float()


def pick(
    config: ModelConfig,
    delete_logit: Tensor,
    deletable: Tensor,
    keep_rate: Tensor,
    key: Tensor,
    step: int,
    temperature: float,
) -> PickerOut:
    """Decides with noise. ``budget``: the asked number of tokens, best first; ``free``: each token for itself.

    The keep probability is calibrated per sequence to the asked rate, so that the label-taught logit may keep its own
    meaning (probability of being restored). temperature 0: no noise.
    """
    offset = calibrate(-delete_logit, deletable, keep_rate)
    keep_logit = offset - delete_logit
    spread = (
        noise.logistic(key, "pick", step, delete_logit.shape[1]) if temperature > 0 else torch.zeros_like(keep_logit)
    )
    drawn = keep_logit.detach() + max(temperature, 1e-6) * spread
    if config.selection == "budget":
        deleted = deletion.best_first(-drawn, deletable, deletion.budget(deletable, keep_rate))
    else:
        deleted = (drawn < 0) & deletable
    relaxed = relaxed_keep(config.estimator, keep_logit, spread, max(temperature, 0.1))
    relaxed = torch.where(deletable, relaxed, 1.0)
    keep_prob = torch.where(deletable, torch.sigmoid(keep_logit), 1.0)
    return PickerOut(delete_logit, keep_prob, straight_through((~deleted).float(), relaxed))
