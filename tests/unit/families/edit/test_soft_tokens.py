"""The gradient that crosses a round boundary: against finite differences, and where there must be none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_rounds import make_batch, make_model, make_plan
from torch import Tensor

from dualmask.core import noise
from dualmask.curriculum import StepPlan
from dualmask.families.edit.losses.total import round_loss
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.task import COUNTERS_PER_STEP, begin, train_round
from dualmask.ops import deletion

# Losses that are smooth in the drafts' embeddings once all decisions are made. The others hold straight-through terms
# or detached labels of their own, whose slope is not that of the forward.
SMOOTH = {"recon": 1.0, "ptr_count": 1.0, "keep_oracle": 1.0, "comp_kl": 1.0}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float64 throughout, also where the model makes sure of float32."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class TwoRounds:
    """Round 0 played; round 1, in which a part is deleted at random, as a function of the state behind it."""

    def __init__(self, **rollout) -> None:
        self.model, self.batch = make_model().to(torch.get_default_dtype()), make_batch(12)
        how = {
            "rounds": 2,
            "top_k": 8,
            "count_estimator": "none",
            "on_policy_counts": 0.0,
            "teacher_forced_deletions": 0.0,
        }
        self.plan: StepPlan = make_plan(
            train=["filler", "inserter", "picker"],
            losses=SMOOTH,
            deletion={"temperature": 5.0},
            rollout=how | rollout,
        )
        plan = self.plan
        self.asked = deletion.keep_rates(self.batch.key, plan.step, plan.keep_rate_low, plan.keep_rate_high)
        self.state, self.out = self.play(begin(self.batch, plan), 0)

    def play(self, state: RoundState, number: int) -> tuple[RoundState, RoundOut]:
        return train_round(self.model, state, self.batch, self.plan, number, self.asked)

    def loss(self) -> Tensor:
        """Of round 1."""
        return round_loss(self.play(self.state, 1)[1], self.plan).total

    def relaxed_loss(self, weight: Tensor) -> float:
        """Of round 1, where the embedding of a filled place is really its token's + (weight − drawn weight) · those of
        its top tokens."""
        model, soft = self.model, self.state.soft
        mixture = torch.einsum("mn,mnd->md", weight - soft.weight.detach(), model.table(soft.token))
        hard = model.table(self.state.tokens)
        mixed = hard.flatten(0, 1).index_add(0, soft.slot, mixture).view_as(hard)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "embed", lambda tokens, soft: mixed)
            return self.loss().item()

    def weights(self, top: Tensor) -> Tensor:
        """The relaxed draw from the top logits: softmax((logits) / temperature + the noise of each place's tokens)."""
        soft, width = self.state.soft, self.batch.tokens.shape[1]
        key = noise.mix(self.batch.key[soft.slot // width] + soft.slot % width)
        uniform = noise.uniform_at(key, "fill", self.plan.step * COUNTERS_PER_STEP, soft.token)
        return torch.softmax(top / self.plan.fill_temperature - torch.log(-torch.log(uniform)), -1)


def test_gradient_into_the_round_before_is_the_slope_of_the_mixed_embedding(double: None) -> None:
    rounds = TwoRounds()
    soft, logits = rounds.state.soft, rounds.out.filler.logits
    assert torch.equal(rounds.out.filler.slot, soft.slot)
    by_weight, by_logit = torch.autograd.grad(rounds.loss(), [soft.weight, logits])
    by_logit = by_logit.gather(1, soft.token)
    top, weight = logits.detach().gather(1, soft.token), soft.weight.detach()
    torch.testing.assert_close(rounds.weights(top), weight, rtol=1e-9, atol=1e-9)
    step = 1e-5
    for slot, token in ((0, 0), (3, 1), (7, 0), (13, 2), (24, 5)):
        nudge = torch.zeros_like(weight)
        nudge[slot, token] = step
        slope = (rounds.relaxed_loss(weight + nudge) - rounds.relaxed_loss(weight - nudge)) / (2 * step)
        assert slope == pytest.approx(by_weight[slot, token].item(), rel=1e-5, abs=1e-9)
        above, below = (rounds.relaxed_loss(rounds.weights(top + sign * nudge)) for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(by_logit[slot, token].item(), rel=1e-5, abs=1e-9)
    assert (by_weight[[0, 3, 7, 13, 24]].abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize(
    ("rollout", "crosses"),
    [
        ({}, True),
        ({"token_estimator": "straight_through"}, True),
        ({"fill_temperature": 0.0}, True),
        ({"cross_round_gradient": False}, False),
        ({"token_estimator": "none"}, False),
    ],
)
def test_a_round_teaches_the_round_before_only_where_it_is_asked_to(rollout: dict, crosses: bool) -> None:
    rounds = TwoRounds(**rollout)
    (gradient,) = torch.autograd.grad(rounds.loss(), [rounds.out.filler.logits], allow_unused=True)
    assert (gradient is not None and bool(gradient.any())) is crosses


def test_soft_tokens_change_nothing_forward() -> None:
    rounds = TwoRounds()
    hard = rounds.model.embed(rounds.state.tokens)
    assert torch.equal(rounds.model.embed(rounds.state.tokens, rounds.state.soft), hard)
    assert torch.equal(rounds.state.tokens.flatten()[rounds.state.soft.slot], drawn(rounds))


def drawn(rounds: TwoRounds) -> Tensor:
    """The tokens of the largest relaxed weights."""
    soft = rounds.state.soft
    return soft.token.gather(1, soft.weight.argmax(1, keepdim=True)).squeeze(1)
