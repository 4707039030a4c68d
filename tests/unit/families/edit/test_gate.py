"""The Gate's losses: the exact gradient of a binary decision, and who has a say in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_rounds import make_batch, make_model, rounds_plan

from dualmask.families.edit.losses import gate
from dualmask.families.edit.outputs import RoundOut
from dualmask.families.edit.task import begin, unroll

ROWS = 24


@pytest.fixture(scope="module")
def out() -> RoundOut:
    """Round 0 of random texts, with the Gate's logits as a leaf in float64."""
    starts = {"rewrite": 0.2, "corrupted": 0.5, "clean": 0.3}
    model, batch, plan = make_model(), make_batch(ROWS), rounds_plan(teacher_forced_deletions=1.0, starts=starts)
    _, (out,) = unroll(model, begin(batch, plan), batch, plan, range(1))
    return replace(out, gate=replace(out.gate, logit=out.gate.logit.detach().double().requires_grad_()))


def test_the_gradient_is_that_of_the_weighted_branches(out: RoundOut) -> None:
    """d/dg of g·L_edit + (1−g)·L_generate is the difference of the costs; g is the logistic function of the logit."""
    (by_logit,) = torch.autograd.grad(gate.losses(out)["gate"], [out.gate.logit])
    assert (by_logit.abs() > 1e-4).sum() > 2
    step, g = 1e-6, torch.sigmoid(out.gate.logit.detach())
    for row in range(ROWS):

        def expected(value: float, row: int = row) -> float:
            both = value * out.gate.cost_edit[row].double() + (1 - value) * out.gate.cost_generate[row].double()
            return (both * out.gate.compared[row] / ROWS).item()

        value = g[row].item()
        by_value = (expected(value + step) - expected(value - step)) / (2 * step)
        assert by_logit[row].item() == pytest.approx(by_value * value * (1 - value), rel=1e-6, abs=1e-12)


def test_texts_that_were_not_compared_contribute_nothing(out: RoundOut) -> None:
    others = ~out.gate.compared
    assert others.any()
    dear = replace(out.gate, cost_edit=torch.where(others, 1e6, out.gate.cost_edit))
    for name in ("gate", "gate_cost"):
        assert torch.equal(gate.losses(replace(out, gate=dear))[name], gate.losses(out)[name])


def test_editing_costs_where_the_gate_decides_and_nowhere_else(out: RoundOut) -> None:
    (gradient,) = torch.autograd.grad(gate.losses(out)["gate_cost"], [out.gate.logit])
    assert (gradient[out.gate.free] > 0).all()
    assert out.gate.free.any()
    assert not gradient[~out.gate.free].any()
    assert (~out.gate.free).any()


def test_labels_reward_opening_for_wrong_drafts(out: RoundOut) -> None:
    inner = torch.arange(out.draft.shape[1])
    inner = (inner > 0) & (inner < out.length[:, None] - 1)
    wrong = ((out.match < 0) & inner).any(1)
    assert wrong.any()
    assert not wrong.all()
    knowing = torch.where(wrong, 2.0, -2.0)
    loss = [
        gate.losses(replace(out, gate=replace(out.gate, logit=logit)))["gate_oracle"].item()
        for logit in (knowing, 0 * knowing, -knowing)
    ]
    assert loss[0] < loss[1] < loss[2]


def test_gate_open_is_the_mean_probability_where_the_gate_decides(out: RoundOut) -> None:
    figures = {**gate.losses(out), **gate.figures(out.gate)}
    seen = gate.gate_open({name: value.item() for name, value in figures.items()})
    assert seen["gate_open"] == pytest.approx(torch.sigmoid(out.gate.logit)[out.gate.free].mean().item())
    assert gate.gate_open({"gate_free": 0.0, "gate_cost": 0.0}) == {}
