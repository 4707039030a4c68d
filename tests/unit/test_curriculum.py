from itertools import pairwise

import pytest

from dualmask.config.schedule import Schedule
from dualmask.config.schema import StageConfig
from dualmask.curriculum import first_step, plan_at, total_steps


def stage(steps, **changes):
    return StageConfig.model_validate(
        {"name": "filler", "steps": steps, "train": ["filler"], "lr": {"peak": 1.0, "warmup_steps": 2}, **changes}
    )


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


@pytest.mark.parametrize(("decay", "last"), [("linear", 0.1), ("cosine", 0.1), ("constant", 1.0)])
def test_learning_rate_warms_up_and_decays_to_its_share(decay, last):
    stages = [stage(20, lr={"peak": 1.0, "warmup_steps": 4, "decay": decay, "final_share": 0.1})]
    rates = [plan_at(stages, step).lr for step in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[-1] == pytest.approx(last)
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[4:]))


def test_annealed_values_follow_the_progress_of_their_stage():
    annealed = stage(10, losses={"recon": {"start": 1.0, "end": 0.0}}, deletion={"temperature": {"start": 2, "end": 1}})
    plan = plan_at([stage(4), annealed], 4 + 5)
    assert plan.loss_weight["recon"] == pytest.approx(0.5)
    assert plan.temperature == pytest.approx(1.5)
    assert Schedule(start=0, end=1, shape="cosine").at(0.5) == pytest.approx(0.5)


def test_contradictions_fail_with_both_numbers():
    with pytest.raises(ValueError, match=r"warmup_steps=9 must not exceed steps=4"):
        stage(4, lr={"peak": 1.0, "warmup_steps": 9})
    with pytest.raises(ValueError, match="leaves frozen"):
        stage(4, lr_scale={"picker": 0.1})
    with pytest.raises(ValueError, match="exceeds keep_rate_high"):
        stage(4, deletion={"keep_rate_low": 0.9, "keep_rate_high": 0.5})
