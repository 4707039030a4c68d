"""REINFORCE with a leave-one-out baseline (Kool, van Hoof, Welling 2019) for the decisions whose estimator it is."""

# B batch = texts · samples

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualmask.families.edit.config import EditConfig, RoundStage
from dualmask.families.edit.outputs import RoundOut


def advantage(reward: Tensor, samples: int) -> Tensor:
    """[B] reward of each copy less the mean of the other copies of its text; copies stand side by side."""
    each = reward.view(-1, samples)
    others = (each.sum(1, keepdim=True) - each) / (samples - 1)
    return (each - others).flatten()


def decisions(stage: RoundStage, config: EditConfig) -> list[str]:
    """Names in ``RoundOut.log_prob`` of the decisions that learn in this way."""
    rollout = stage.rollout
    estimators = {
        "delete": config.estimator,
        "gate": rollout.gate_estimator,
        "count": rollout.count_estimator,
        "token": rollout.token_estimator,
    }
    if stage.name == "reward":
        return ["delete", "gate"]
    return [name for name, estimator in estimators.items() if estimator == "reinforce"]


def loss(outs: Sequence[RoundOut], reward: Tensor, names: Sequence[str], samples: int) -> Tensor:
    """−advantage · Σ log P(decisions of the window), mean over the batch. reward [B]: of the window's last draft."""
    total = torch.zeros_like(reward)
    for out in outs:
        assert out.log_prob is not None
        for name in names:
            total = total + out.log_prob[name] * out.live
    return -(advantage(reward, samples).detach() * total).mean()
