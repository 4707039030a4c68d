"""Truncated back-propagation: what the windows of ``RoundsTask`` give, against loops that one can read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_rounds import make_batch, make_model, rounds_plan
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.edit.losses.total import round_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.task import RoundsTask, begin, train_round
from dualmask.ops import deletion

ROWS = 12


def gradients(model: DualMask) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def by_task(model: DualMask, batch: Batch, plan: StepPlan) -> tuple[float, dict[str, Tensor]]:
    task, state, total = RoundsTask(model), None, 0.0
    for rounds in plan.windows:
        out = task.window(batch, plan, rounds, state)
        out.total.backward()
        total, state = total + out.total.item(), out.state
    return total, gradients(model)


def by_hand(model: DualMask, batch: Batch, plan: StepPlan, width: int, *, cut: bool) -> tuple[float, dict[str, Tensor]]:
    """One sum over all rounds, one backward. ``cut``: drafts lose their gradient behind every ``width`` rounds."""
    asked = deletion.keep_rates(batch.key, plan.step, plan.keep_rate_low, plan.keep_rate_high)
    state, total = begin(batch, plan), torch.zeros(())
    for number in range(plan.rounds):
        state, out = train_round(model, state, batch, plan, number, asked)
        last = (number + 1) % width == 0 or number == plan.rounds - 1
        recon_weight = 1.0 if last else plan.stage.rollout.earlier_weight
        total = total + round_loss(out, plan, recon_weight=recon_weight).total / plan.rounds
        if cut and last:
            state = replace(state, soft=None)
    total.backward()
    return total.item(), gradients(model)


def assert_same(seen: tuple[float, dict[str, Tensor]], wanted: tuple[float, dict[str, Tensor]]) -> None:
    assert seen[0] == pytest.approx(wanted[0], rel=1e-6)
    assert seen[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert (seen[1][name] - gradient).abs().max() <= 1e-6 * gradient.abs().max().clamp_min(1), name


@pytest.mark.parametrize("rounds", [1, 4])
def test_one_window_is_full_back_propagation(rounds: int) -> None:
    model, batch = make_model(), make_batch(ROWS)
    plan = rounds_plan(rounds=rounds, window=rounds, earlier_weight=0.5)
    assert_same(by_task(model, batch, plan), by_hand(model, batch, plan, rounds, cut=False))


@pytest.mark.parametrize("window", [1, 2, 3])  # 3: the last window is shorter
def test_windows_are_the_detached_loop(window: int) -> None:
    model, batch = make_model(), make_batch(ROWS)
    plan = rounds_plan(rounds=4, window=window, earlier_weight=0.5)
    seen = by_task(model, batch, plan)
    assert_same(seen, by_hand(model, batch, plan, window, cut=True))
    uncut = by_hand(model, batch, plan, window, cut=False)
    assert seen[0] == pytest.approx(uncut[0], rel=1e-6)
    most = max((gradient - uncut[1][name]).abs().max().item() for name, gradient in seen[1].items())
    assert most > 1e-4, "nothing was cut"


def test_the_state_between_windows_holds_no_gradient() -> None:
    model, batch, plan = make_model(), make_batch(ROWS), rounds_plan()
    state = RoundsTask(model).window(batch, plan, range(2), None).state
    assert state.soft is None
    held = [value for value in vars(state).values() if isinstance(value, Tensor) and value.requires_grad]
    assert held == []


def test_windows_add_up_to_the_mean_over_all_rounds() -> None:
    """Parts as well as totals, and every round's cost under its own name."""
    model, batch = make_model(), make_batch(ROWS)
    plan = rounds_plan(rounds=4, window=4)
    task, state, total, sums = RoundsTask(model), None, 0.0, {}
    whole = task.window(batch, plan, range(4), None)
    for rounds in rounds_plan(rounds=4, window=1).windows:
        out = task.window(batch, plan, rounds, state)
        total, state = total + out.total.item(), out.state
        for name, value in out.parts.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    assert total == pytest.approx(whole.total.item(), rel=1e-5)
    assert sums.keys() == whole.parts.keys() >= {"cost_0", "cost_3", "recon", "gate"}
    assert sums == pytest.approx({name: value.item() for name, value in whole.parts.items()}, rel=1e-4, abs=1e-6)


def test_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    """Over all windows, copies of the texts included: what makes ranks and gradient accumulation exact."""
    model, batch = make_model(), make_batch(ROWS)
    losses = {**rounds_plan().loss_weight, "reinforce": 0.5}
    plan = rounds_plan(losses=losses, samples=4, token_estimator="reinforce", count_estimator="reinforce")
    (whole, _), *halves = (by_task(model, batch.rows(part), plan) for part in (slice(None), slice(0, 6), slice(6, 12)))
    assert whole == pytest.approx(sum(total for total, _ in halves) / 2, rel=1e-5)


def test_copies_of_a_text_start_alike_and_decide_for_themselves() -> None:
    model, batch, plan = make_model(), make_batch(3), rounds_plan(samples=4)
    state = begin(batch, plan)
    assert torch.equal(state.tokens, begin(batch, rounds_plan()).tokens.repeat_interleave(4, 0))
    outs, after = RoundsTask(model).play(batch, plan, range(4))
    assert len(outs) == 4
    assert len(after.tokens.view(3, 4, -1)[0].unique(dim=0)) > 1
