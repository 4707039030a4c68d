"""What the picker learns from labels, against a loop over the tokens that one can read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_rounds import WIDTH, make_batch, make_model, make_plan
from torch import Tensor

from dualmask.core.batch import Batch, deletable
from dualmask.families.edit.completion import UNRESTORED, Deletion, text_cost
from dualmask.families.edit.losses import recoverability
from dualmask.families.edit.outputs import RoundOut
from dualmask.families.edit.task import begin, unroll

ROWS, MOST = 24, 3


@pytest.fixture(scope="module")
def out() -> RoundOut:
    """A round on corrupted and on whole texts with many deletions, of right tokens and of wrong ones."""
    model, batch = make_model(max_gap_count=MOST), make_batch(ROWS)
    how = {
        "on_policy_counts": 0.3,
        "teacher_forced_deletions": 0.7,
        "starts": {"rewrite": 0.5, "corrupted": 0.5},
        "corruption": {"rate_low": 0.3, "rate_high": 0.5, "double": 4.0},
    }
    plan = make_plan(step=1, rollout=how)
    _, (out,) = unroll(model, begin(batch, plan), batch, plan, range(1))
    return out


def by_hand(out: RoundOut) -> tuple[Tensor, Tensor]:
    """[B, T] label and whether it is known, for texts whose masks were counted by the labels."""
    label, known = torch.zeros(out.draft.shape), torch.zeros(out.draft.shape, dtype=torch.bool)
    prob = dict(zip(out.filler.slot.tolist(), out.filler.target_prob.tolist(), strict=True))
    found = out.inserter.gap_logits.softmax(-1)
    for row in range(ROWS):
        match, place = out.match[row].tolist(), 0
        kept = [token for token in range(out.length[row]) if not out.deleted[row, token]]
        for gap, (left, right) in enumerate(pairwise(kept)):
            needed = int(out.gap_count[row, gap])
            opened = min(needed, MOST)
            if match[left] >= 0 and match[right] >= 0:
                for rank, token in enumerate(range(left + 1, right)):
                    turn = match[token] - match[left] - 1 if match[token] >= 0 else min(rank, opened - 1)
                    back = prob.get(row * WIDTH + place + 1 + turn, 0.0) if turn < opened else 0.0
                    back = back if needed else 1.0
                    label[row, token] = back * found[row, gap, needed] if needed <= MOST else 0.0
                    known[row, token] = True
            place += opened + 1
    return label, known


def test_the_label_is_the_filler_times_the_inserter(out: RoundOut) -> None:
    label, known = by_hand(out)
    assert not (out.judged & ~known).any()
    unjudged = (known & ~out.judged).any(1)  # texts whose masks the inserter counted
    assert 0 < unjudged.sum() < ROWS
    assert torch.equal(out.judged[~unjudged], known[~unjudged])
    torch.testing.assert_close(recoverability.labels(out), label * out.judged, rtol=1e-5, atol=1e-7)
    right, wrong = out.judged & (out.match >= 0), out.judged & (out.match < 0)
    empty = wrong & (out.restored == 1)
    for kind in (right, wrong, empty):
        assert (label[kind] > 0).any()


def test_count_power_softens_the_inserters_share(out: RoundOut) -> None:
    whole, none = recoverability.labels(out), recoverability.labels(out, count_power=0.0)
    half = recoverability.labels(out, count_power=0.5)
    torch.testing.assert_close(half.square(), whole * none, rtol=1e-5, atol=1e-8)
    assert ((none >= whole) & (none <= out.restored + 1e-6)).all()


def test_labels_hold_no_gradient_and_the_loss_reaches_the_picker_alone(out: RoundOut) -> None:
    assert not recoverability.labels(out).requires_grad
    loss = recoverability.loss(out, 10.0)
    by_picker, by_filler, by_inserter = torch.autograd.grad(
        loss, [out.picker.delete_logit, out.filler.logits, out.inserter.gap_logits], allow_unused=True
    )
    assert torch.equal(by_picker != 0, out.judged)
    assert by_filler is None
    assert by_inserter is None


def test_the_oracle_rewards_doubting_what_is_wrong_and_nothing_else(out: RoundOut) -> None:
    inner = deletable(out.length, WIDTH)
    wrong = (out.match < 0) & inner
    assert wrong.any()
    knowing = torch.where(wrong, 2.0, -2.0)

    def oracle(logit: Tensor) -> float:
        return recoverability.oracle(replace(out, picker=replace(out.picker, wrong_logit=logit))).item()

    assert oracle(knowing) < oracle(0 * knowing) < oracle(-knowing)
    assert oracle(torch.where(inner, knowing, 50.0)) == oracle(knowing)


def test_the_cost_of_a_text_is_that_of_copying_or_filling_it() -> None:
    """Target of 8 tokens; the draft keeps 5 right and 2 wrong ones; of the 3 missing ones 2 have a slot."""
    match = torch.tensor([[0, 1, -1, 3, -1, 6, 7, -1]])
    draft = Batch(torch.arange(8)[None] + 10, torch.tensor([8]), torch.tensor([0]))
    keep = torch.tensor([[True] * 7 + [False]])
    target = Batch(torch.arange(8)[None] + 10, torch.tensor([8]), torch.tensor([0]))
    prob, hit = torch.tensor([0.5, 0.1, 0.9]), torch.tensor([True, True, False])
    cost = text_cost(Deletion(draft, torch.zeros(1, 8, 1), match, ~keep), target, torch.tensor([0, 0, 0]), prob, hit)
    nats = -torch.log(prob[hit] + UNRESTORED).sum() - 3 * torch.log(torch.tensor(UNRESTORED))
    assert cost.tolist() == pytest.approx([nats.item() / 8])
