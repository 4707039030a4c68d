"""Which modules each loss of a span teaches (seed 004, section 4, row by row), and what the gate is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_span import SPAN, make_model, make_texts, span_plan
from torch import Tensor

from dualmask.families.span import spans
from dualmask.families.span.config import SpanLosses, SpanStageConfig
from dualmask.families.span.gate_net import CONTINUE, softly_bounded
from dualmask.families.span.losses import GIVEN, latent_loss, span_loss, steps_taken, stop_costs, token_loss
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.outputs import SpanOut
from dualmask.families.span.rollout import rollout
from dualmask.nn.token_losses import mean_token_loss

ROWS = 12
OPEN = {"detach_pred": False}
COST, QUALITY, DEAF = ({"gate_gradient": kind} for kind in ("cost", "quality", "none"))

# loss, keys of the stage, modules that it teaches; "logits" is what makes them: the table where it is shared
FLOW: list[tuple[str, dict[str, Any], set[str]]] = [
    ("ar", {}, {"table", "decoder", "logits"}),
    ("latent", {}, {"table", "encoder"}),
    ("latent", OPEN, {"table", "encoder", "decoder"}),
    ("token", COST, {"table", "encoder", "logits"}),
    ("token", DEAF, {"table", "encoder", "logits"}),
    ("token", COST | OPEN, {"table", "encoder", "logits", "decoder"}),
    ("token", QUALITY, {"table", "encoder", "logits", "gate", "decoder"}),
    ("token", QUALITY | {"detach_entropy": True}, {"table", "encoder", "logits", "gate"}),
    ("steps", QUALITY, {"gate", "table", "decoder", "logits"}),
    ("steps", COST, {"gate", "table", "decoder", "logits"}),
    ("steps", QUALITY | {"detach_entropy": True}, {"gate"}),
    ("steps", DEAF, set()),
    ("pred", {}, {"table", "decoder", "logits"}),
]


def losses(model: SpanFusion, how: dict[str, Any]) -> dict[str, Tensor]:
    """Each as it stands in the total, unweighted."""
    batch, plan = make_texts(ROWS), span_plan(**how)
    out, stage = rollout(model, batch, plan), plan.stage.span
    assert stage is not None
    assert out.z_teacher is not None
    assert out.pred_nats is not None
    weights = spans.stop_weights(out.go_on)
    return {
        "ar": mean_token_loss(out.ar, batch, GIVEN),
        "latent": latent_loss(out.z, out.z_teacher),
        "token": token_loss(out, weights, stage),
        "steps": steps_taken(out, weights, stage),
        "pred": (out.pred_nats * out.open).sum(),
    }


EXPECTED = [(name, how | {"gate_estimator": "expected"}, taught) for name, how, taught in FLOW if how != DEAF]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize(("name", "how", "taught"), FLOW + EXPECTED)
def test_gradient_flow(name: str, how: dict[str, Any], taught: set[str], shared: bool) -> None:
    model = make_model(shared_projection=shared)
    loss = losses(model, how)[name]
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss + 0 * model.gate.last.bias.sum(), list(parameters.values()), allow_unused=True)
    reached = {
        key.split(".")[0] for key, grad in zip(parameters, found, strict=True) if grad is not None and grad.any()
    }
    logits = "table" if shared else "projection"
    assert reached == {logits if module == "logits" else module for module in taught}


@pytest.mark.parametrize("loss", ["steps", "token"])
def test_the_gate_hears_the_true_slope(loss: str) -> None:
    """Finite differences in float64, parameter by parameter, along the gradient. The gate's own parameters move its
    logits and nothing else of a span: what stopping behind a step costs stays as it is."""
    model, batch = make_model(), make_texts(ROWS)
    plan = span_plan(gate_estimator="expected", teacher_forcing=1.0)
    out, stage = rollout(model, batch, plan), plan.stage.span
    assert stage is not None
    model.double()

    def value(go_on: Tensor | None = None) -> Tensor:
        if go_on is None:
            logits = [gate_logits(model, out, batch.key, plan.step, turn) for turn in range(4)]
            go_on = torch.stack(logits, 1).softmax(-1)[..., CONTINUE] * (out.open & ~out.pick).any(-1)
        weights = spans.stop_weights(go_on)
        return steps_taken(out, weights, stage) if loss == "steps" else token_loss(out, weights, stage)

    for name, parameter in model.gate.named_parameters():
        (slope,) = torch.autograd.grad(value(), [parameter])
        assert slope.any(), name
        start, step = parameter.detach().clone(), 1e-6 * slope / slope.norm()
        with torch.no_grad():
            parameter.copy_(start + step)
            ahead = value().item()
            parameter.copy_(start - step)
            behind = value().item()
            parameter.copy_(start)
        assert (ahead - behind) / 2e-6 == pytest.approx(slope.norm().item(), rel=1e-5), name
    assert value().item() == pytest.approx(value(out.go_on).item(), rel=1e-5)


def gate_logits(model: SpanFusion, out: SpanOut, key: Tensor, step: int, turn: int) -> Tensor:
    """What the GateNet said in a step, its last rounding to float32 left out."""
    said: list[Tensor] = []
    handle = model.gate.last.register_forward_hook(lambda module, inputs, logits: said.append(logits))
    model.gate(out.mean_entropy[:, turn].double(), key, step * model.span.g_max + turn)
    handle.remove()
    return softly_bounded(said[0])


def test_texts_in_which_tokens_were_drawn_tell_the_gate_nothing() -> None:
    """Where gold is written in some; without any, all do."""
    model = make_model()
    for share in (0.5, 0.0):
        plan = span_plan(gate_estimator="expected", teacher_forcing=share)
        out, stage = rollout(model, make_texts(ROWS), plan), plan.stage.span
        assert stage is not None
        go_on = out.go_on.detach().requires_grad_()
        (slope,) = torch.autograd.grad(token_loss(out, spans.stop_weights(go_on), stage), [go_on])
        assert slope[:, :-1].any(1).tolist() == (out.forced.tolist() if share else [True] * ROWS)
        assert not slope[:, -1].any()


def hand_made(forced: bool) -> SpanOut:
    """One text, three steps, three places, written from left to right."""
    pick = torch.eye(3, dtype=torch.bool)[None]
    open_ = torch.ones(3, 3, dtype=torch.bool).triu()[None]
    nats = torch.tensor([[[1.0, 2.0, 4.0], [8.0, 0.5, 3.0], [16.0, 32.0, 0.25]]], requires_grad=True)
    nothing = torch.zeros(1)
    return SpanOut(
        ar=None, target=None, nats=nats, pred_nats=None, open=open_, pick=pick, forced=torch.tensor([forced]),
        go_on=torch.tensor([[0.5, 0.25, 0.9]], requires_grad=True), gate_logits=nothing, mean_entropy=nothing,
        stop=nothing, z=nothing,
    )  # type: ignore[arg-type] # fmt: skip


def test_stop_costs_of_a_hand_made_span() -> None:
    """Drawn tokens: all of the states of that step. True tokens: of the step that wrote them, the rest of this one."""
    drawn, told = hand_made(False), hand_made(True)
    assert torch.equal(stop_costs(drawn), drawn.nats)
    assert stop_costs(told)[0].tolist() == [[1.0, 2.0, 4.0], [1.0, 0.5, 3.0], [1.0, 0.5, 0.25]]


@pytest.mark.parametrize("explore", [0.0, 0.6])
def test_token_loss_of_a_hand_made_span(explore: float) -> None:
    """stop_weights (0.5, 0.375, 0.125) of costs 7/3, 4.5/3 and 1.75/3 nats per token."""
    out = hand_made(True)
    how = SpanStageConfig(teacher_forcing=0.5, explore=explore)
    weights = spans.stop_weights(out.go_on)
    assert weights[0].tolist() == [0.5, 0.375, 0.125]
    cost = torch.tensor([7.0, 4.5, 1.75]) / 3
    loss = token_loss(out, weights, how)
    assert loss.item() == pytest.approx((1 - explore) * (weights[0] @ cost).item() + explore * cost.mean().item())
    to_gate, to_nats = torch.autograd.grad(loss, [out.go_on, out.nats])
    c = out.go_on[0].tolist()
    later = c[1] * cost[2] + (1 - c[1]) * cost[1]
    assert to_gate[0].tolist() == pytest.approx([(later - cost[0]).item(), c[0] * (cost[2] - cost[1]).item(), 0.0])
    shares = ((1 - explore) * weights[0] + explore / 3).detach()
    wanted = torch.tensor([[shares.sum(), shares[0], shares[0]], [0, shares[1:].sum(), shares[1]], [0, 0, shares[2]]])
    torch.testing.assert_close(to_nats[0], wanted / 3)


def test_the_total_is_weighted_as_the_seed_says() -> None:
    batch, plan = make_texts(ROWS), span_plan(step=4, losses={"gate_cost": 0.05, "gate_cost_steps": 30_000})
    report = span_loss(rollout(make_model(), batch, plan), batch, plan)
    part = {name: value.item() for name, value in report.parts.items()}
    assert "pred" not in part
    beta = min(0.05, 4 / 30_000 * 0.05)
    wanted = 0.4 * part["ar"] + 0.2 * part["latent"] + 0.4 * part["token"] + beta * part["steps"]
    assert report.total.item() == pytest.approx(wanted, rel=1e-6)


def test_beta_grows_to_its_end() -> None:
    how = SpanLosses()
    assert [how.beta(step) for step in (0, 3000, 30_000, 90_000)] == pytest.approx([0.0, 0.005, 0.05, 0.05])


def test_latent_loss_knows_directions_only() -> None:
    """0 for the same states at any scale and offset, 1 for opposite ones; the teacher has no gradient."""
    z = torch.randn(2, SPAN, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert latent_loss(z, 3 * z.detach() + 1).item() == pytest.approx(0, abs=1e-5)
    assert latent_loss(z, -z.detach()).item() == pytest.approx(1, abs=1e-5)
    out = rollout(make_model(), make_texts(), span_plan())
    assert out.z_teacher is not None
    assert not out.z_teacher.requires_grad
    assert out.z.requires_grad


def test_collapsed_states_show() -> None:
    batch, plan = make_texts(ROWS), span_plan()
    out = rollout(make_model(), batch, plan)
    assert span_loss(out, batch, plan).parts["latent_std"] > 0.3
    alike = replace(out, z=out.z[:1, :1].expand_as(out.z))
    assert span_loss(alike, batch, plan).parts["latent_std"] < 1e-4
