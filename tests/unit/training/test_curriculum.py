from itertools import pairwise, product

import pytest
from stages import make_stage

from dualmask.config.schedule import Schedule
from dualmask.curriculum import first_step, plan_at, total_steps
from dualmask.families.edit.curriculum import EARN_STEPS, Earned, EditPlan


def stage(steps, **changes):
    return make_stage(
        {"name": "filler", "steps": steps, "train": ["filler"], "lr": {"peak": 1.0, "warmup_steps": 2}, **changes}
    )


def joint(steps, **rollout):
    return stage(steps, name="joint", train=["filler", "inserter", "picker", "gate"], rollout=rollout)


def test_steps_map_to_stages_in_order():
    stages = [stage(3), stage(5)]
    plans = [plan_at(stages, step) for step in range(total_steps(stages))]
    assert [plan.stage_index for plan in plans] == [0] * 3 + [1] * 5
    assert [plan.step_in_stage for plan in plans] == [0, 1, 2, 0, 1, 2, 3, 4]
    assert [plan.is_last_of_stage for plan in plans] == [False, False, True] + [False] * 4 + [True]
    assert first_step(stages, 1) == 3
    for outside in (-1, 8):
        with pytest.raises(IndexError):
            plan_at(stages, outside)


@pytest.mark.parametrize(("decay", "last"), [("linear", 0.1), ("cosine", 0.1), ("wsd", 0.1), ("constant", 1.0)])
def test_learning_rate_warms_up_and_decays_to_its_share(decay, last):
    stages = [stage(20, lr={"peak": 1.0, "warmup_steps": 4, "decay": decay, "final_share": 0.1})]
    rates = [plan_at(stages, step).lr for step in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[-1] == pytest.approx(last)
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[4:]))


def test_wsd_stays_at_its_peak_and_falls_at_the_end():
    stages = [stage(20, lr={"peak": 1.0, "warmup_steps": 4, "decay": "wsd", "decay_share": 0.25, "final_share": 0.0})]
    rates = [plan_at(stages, step).lr for step in range(20)]
    assert rates[3:15] == [1.0] * 12
    assert rates[15:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_a_longer_wsd_stage_repeats_the_steps_before_it_falls():
    """So that a run may go on from a checkpoint of its stable part."""
    short, long = ([stage(steps, lr={"peak": 1.0, "warmup_steps": 2, "decay": "wsd"})] for steps in (10, 50))
    assert [plan_at(short, step).lr for step in range(8)] == [plan_at(long, step).lr for step in range(8)]


def test_annealed_values_follow_the_progress_of_their_stage():
    annealed = stage(10, losses={"recon": {"start": 1.0, "end": 0.0}}, deletion={"temperature": {"start": 2, "end": 1}})
    plan = EditPlan.of(plan_at([stage(4), annealed], 4 + 5))
    assert plan.loss_weight["recon"] == pytest.approx(0.5)
    assert plan.temperature == pytest.approx(1.5)
    assert Schedule(start=0, end=1, shape="cosine").at(0.5) == pytest.approx(0.5)


def test_contradictions_fail_with_both_numbers():
    with pytest.raises(ValueError, match=r"warmup_steps=9 must not exceed steps=4"):
        stage(4, lr={"peak": 1.0, "warmup_steps": 9})
    with pytest.raises(ValueError, match=r"warmup_steps=9 and the 2 steps of lr.decay_share=0.2 .* steps=10"):
        stage(10, lr={"peak": 1.0, "warmup_steps": 9, "decay": "wsd"})
    with pytest.raises(ValueError, match="leaves frozen"):
        stage(4, lr_scale={"picker": 0.1})
    with pytest.raises(ValueError, match="exceeds keep_rate_high"):
        stage(4, deletion={"keep_rate_low": 0.9, "keep_rate_high": 0.5})
    for wrong, said in (
        ({"rounds": 2, "first_rounds": 3}, "first_rounds=3 exceeds rounds=2"),
        ({"add_round_every": 2, "add_round_at": 0.5}, "exclude each other"),
        ({"starts": {"clean": 0}}, "are all 0"),
        ({"rounds": 65}, "less than or equal to 64"),
        ({"token_estimator": "reinforce"}, "samples=1: reinforce compares at least 4 copies"),
        ({"token_estimator": "reinforce", "samples": 4}, "losses.reinforce=0"),
    ):
        with pytest.raises(ValueError, match=said):
            joint(4, **wrong)
    with pytest.raises(ValueError, match="add picker to train"):
        stage(4, name="joint", train=["filler", "gate"])
    with pytest.raises(ValueError, match="raise picker_gradient"):
        stage(
            4,
            name="joint",
            train=["filler", "picker", "gate"],
            losses={"gate": 1},
            rollout={"gate_estimator": "straight_through"},
        )


@pytest.mark.parametrize(
    ("rollout", "rounds"),
    [
        ({"rounds": 3}, [3, 3, 3, 3, 3, 3, 3]),
        ({"rounds": 3, "first_rounds": 1, "add_round_every": 2}, [1, 1, 2, 2, 3, 3, 3]),
        ({"rounds": 4, "first_rounds": 2, "add_round_at": 0.5}, [2, 2, 2, 2, 2, 2, 2]),
    ],
)
def test_rounds_grow_by_steps_or_when_they_are_earned(rollout, rounds):
    stages = [joint(7, **rollout)]
    assert [EditPlan.of(plan_at(stages, step)).rounds for step in range(7)] == rounds
    if "add_round_at" in rollout:
        assert [EditPlan.of(plan_at(stages, 0, {"earned": {"rounds": earned}})).rounds for earned in range(5)] == [
            2,
            3,
            4,
            4,
            4,
        ]


def test_a_stage_in_which_nobody_picks_has_one_round():
    plan = EditPlan.of(plan_at([stage(4)], 0))
    assert plan.rounds == 1
    assert plan.windows == [range(1)]


def test_windows_are_all_rounds_in_order():
    for rounds, window in product(range(1, 8), range(1, 9)):
        windows = EditPlan.of(plan_at([joint(4, rounds=rounds, window=window)], 0)).windows
        assert [number for part in windows for number in part] == list(range(rounds))
        assert all(len(part) == window for part in windows[:-1])
        assert 1 <= len(windows[-1]) <= window


def test_a_round_is_earned_by_the_mean_of_many_steps():
    growing, earned = joint(4, rounds=4, add_round_at=0.5), Earned()
    for _ in range(EARN_STEPS):
        assert earned.rounds == 0
        earned = earned.after(growing, 0.4)
    assert earned == Earned(rounds=0)
    for step in range(2 * EARN_STEPS):
        earned = earned.after(growing, 0.2 if step % 2 else 0.81)
    assert earned == Earned(rounds=2)
    assert Earned().after(joint(4, rounds=4), 1.0) == Earned()
