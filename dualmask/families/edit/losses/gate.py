"""The Gate's losses: both decisions weighed by what they cost, and a price on editing (seed 000)."""

# B batch

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dualmask.core.batch import deletable
from dualmask.families.edit.outputs import GateOut, RoundOut


def losses(out: RoundOut) -> dict[str, Tensor]:
    """gate: g·L_edit + (1−g)·L_generate over the texts on which both were tried; with binary decisions this gradient is
    exact (method.md §4). gate_cost: g, where the Gate decides. gate_oracle: binary cross entropy of g against "a token
    of the draft is wrong", which is known from the alignment. All are means over the batch."""
    assert out.gate is not None
    gate, prob = out.gate, torch.sigmoid(out.gate.logit)
    weighed = prob * gate.cost_edit + (1 - prob) * gate.cost_generate
    wrong = ((out.match < 0) & deletable(out.length, out.draft.shape[1])).any(1).float()
    label = torch.nn.functional.binary_cross_entropy_with_logits(gate.logit, wrong, reduction="none")
    return {
        "gate": (weighed * gate.compared).mean(),
        "gate_cost": (prob * gate.free).mean(),
        "gate_oracle": (label * out.live).mean(),
    }


def figures(gate: GateOut) -> dict[str, Tensor]:
    """``gate_free``: share of the batch on which the Gate decides; ``gate_gain``: nats per token that editing saves."""
    return {
        "gate_free": gate.free.float().mean(),
        "gate_gain": ((gate.cost_generate - gate.cost_edit) * gate.compared).sum() / gate.compared.sum().clamp_min(1),
    }


def gate_open(figures: Mapping[str, float]) -> dict[str, float]:
    """``gate_open``: mean probability of editing where the Gate decides, of a whole step; {} where it decides nothing.

    A ratio of means over rounds and ranks: in some of them the Gate may have decided nothing.
    """
    free = figures.get("gate_free", 0.0)
    return {"gate_open": figures["gate_cost"] / free} if free > 0 else {}
