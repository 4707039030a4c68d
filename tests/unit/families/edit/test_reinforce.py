"""REINFORCE: the advantage, and its gradient against the exact one wherever all outcomes can be counted.

One decision a text, drawn by the very code that training draws it with, at a temperature that is not 1.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_rounds import make_model, make_plan
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.families.edit import starts
from dualmask.families.edit.decisions import Decision, RoundInput, decide_round
from dualmask.families.edit.labels import Labels
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.model import DraftScores
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.picker import DeleteLogits
from dualmask.families.edit.task import begin, copies, unroll
from dualmask.ops.deletion import OFFSETS

SAMPLES, TEXTS, HEAT = 4, 1500, 0.6


def test_advantages_of_a_text_sum_to_zero() -> None:
    reward = torch.rand(20 * SAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    advantage = reinforce.advantage(reward, SAMPLES).view(-1, SAMPLES)
    assert advantage.sum(1).abs().max() < 1e-12
    others = (reward.view(-1, SAMPLES).sum(1) - reward.view(-1, SAMPLES)[:, 0]) / (SAMPLES - 1)
    torch.testing.assert_close(advantage[:, 0], reward.view(-1, SAMPLES)[:, 0] - others)


def texts(width: int) -> Batch:
    """One and the same text of one token, with a key of its own for each."""
    tokens = torch.zeros(TEXTS, width, dtype=torch.long)
    tokens[:, :3] = torch.tensor([BOS_ID, 42, EOS_ID])
    return Batch(tokens, torch.full((TEXTS,), 3), torch.arange(TEXTS) * 7919 + 1)


def round_of(batch: Batch, **rollout) -> tuple[RoundState, RoundOut]:
    """Round 0 of texts of which only BOS and EOS are left: how many tokens, and which?"""
    plan = make_plan(
        train=["filler", "inserter", "picker"],
        losses={"reinforce": 1.0},
        deletion={"temperature": HEAT},
        rollout={"starts": {"empty": 1.0}, "samples": SAMPLES, "fill_temperature": HEAT, "top_k": 2} | rollout,
    )
    state, (out,) = unroll(make_model(max_gap_count=3), begin(batch, plan), batch, plan, range(1))
    return state, out


def gradient(out: RoundOut, reward: Tensor, name: str, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(reinforce.loss([out], reward, [name], SAMPLES), [leaf])
    return found


def assert_unbiased(seen: Tensor, exact: Tensor) -> None:
    """seen [copies, outcomes]: each copy's part of the estimate. Their sum must lie within 5 standard errors of the
    exact gradient, and these must be small beside it. The copies of a text are not independent."""
    by_text = seen.view(TEXTS, SAMPLES, -1).sum(1)
    error = by_text.std(0) * TEXTS**0.5
    assert error.max() < 0.08 * exact.abs().max()
    assert ((by_text.sum(0) - exact).abs() <= 5 * error + 1e-6).all()


def test_tokens() -> None:
    state, out = round_of(texts(3), on_policy_counts=0.0, token_estimator="reinforce")
    logits = out.filler.logits
    top = logits[0].detach().topk(2)
    prob = torch.softmax(top.values / HEAT, -1)
    seen = gradient(out, (state.tokens[:, 1] == top.indices[0]).float(), "token", logits)[:, top.indices]
    assert_unbiased(seen, -prob[0] * prob[1] / HEAT * torch.tensor([1.0, -1.0]))


def test_counts() -> None:
    state, out = round_of(texts(6), on_policy_counts=1.0, count_estimator="reinforce")
    logits = out.inserter.gap_logits
    prob = torch.softmax(logits[0, 0].detach() / HEAT, -1)
    number = torch.arange(len(prob))
    seen = gradient(out, (state.length - 2).float(), "count", logits)[:, 0]
    assert_unbiased(seen, -prob * (number - (prob * number).sum()) / HEAT)


def decisions(wrong: Tensor, gate: Tensor, losses: dict[str, float]) -> Decision:
    """Of round 1 on whole texts with one token: does it go, does the Gate open? wrong, gate [copies]: logits."""
    plan = make_plan(
        losses=losses,
        deletion={"temperature": HEAT},
        rollout={"rounds": 2, "samples": SAMPLES, "teacher_forced_deletions": 0.3},
    )
    batch = copies(texts(3), SAMPLES)
    one = torch.ones(batch.tokens.shape)
    beside = one[..., None].expand(-1, -1, len(OFFSETS))
    logits = DeleteLogits(0.2 * one, beside, wrong[:, None] * one)
    scores = DraftScores(logits=logits, gate_logit=gate, masked_lm=MaskedLMScores(one, one, one))
    kind = torch.full_like(batch.length, starts.KINDS.index("clean"))
    match = torch.arange(3).expand_as(batch.tokens)
    always = torch.ones_like(kind, dtype=torch.bool)
    given = RoundInput(batch, batch, Labels(match), one[:, 0], kind, always, plan, number=1, counter=65)
    return decide_round(make_model().config, scores, given)


@pytest.mark.parametrize("name", ["delete", "gate"])
def test_decisions(name: str) -> None:
    wrong, gate = (torch.full((TEXTS * SAMPLES,), value, requires_grad=True) for value in (0.3, -0.4))
    made = decisions(wrong, gate, {"gate": 1.0} if name == "gate" else {"keep_oracle": 1.0})
    leaf, logit = (wrong, 0.5) if name == "delete" else (gate, -0.4)
    happened = made.proposed[:, 1] if name == "delete" else made.gate > 0.5
    prob = torch.sigmoid(torch.tensor(logit / HEAT))
    _, some = round_of(texts(3).rows(slice(1)))
    out = replace(some, log_prob=made.log_prob, live=torch.ones(TEXTS * SAMPLES))
    seen = gradient(out, torch.where(happened, 1.0, 0.2), name, leaf)[:, None]
    # three texts in ten follow the labels, which is not the picker's decision and teaches it nothing
    own = (made.log_prob["delete"] != 0).view(TEXTS, SAMPLES) if name == "delete" else torch.ones(TEXTS, SAMPLES)
    exact = -0.8 * prob * (1 - prob) / HEAT * own.float().mean()
    assert_unbiased(seen, exact[None])
