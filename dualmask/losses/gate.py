"""The Gate's losses: both decisions weighed by what they cost, and a price on editing (seed 000)."""

# B batch

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.outputs import GateOut


def losses(gate: GateOut) -> dict[str, Tensor]:
    """gate: g·L_edit + (1−g)·L_generate over the texts on which both were tried; with binary decisions this gradient is
    exact (method.md §4). gate_cost: g, where the Gate decides. Both are means over the batch."""
    prob = torch.sigmoid(gate.logit)
    weighed = prob * gate.cost_edit + (1 - prob) * gate.cost_generate
    return {"gate": (weighed * gate.compared).mean(), "gate_cost": (prob * gate.free).mean()}


def figures(gate: GateOut) -> dict[str, Tensor]:
    """``gate_open``: mean probability of editing where the Gate decides; ``gate_gain``: nats a token that it saves."""
    free, compared = gate.free.sum().clamp_min(1), gate.compared.sum().clamp_min(1)
    return {
        "gate_open": (torch.sigmoid(gate.logit.detach()) * gate.free).sum() / free,
        "gate_gain": ((gate.cost_generate - gate.cost_edit) * gate.compared).sum() / compared,
    }
