"""The time that is left, against the times that the quick start's steps took; utilisation; the profiler's files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from test_observers import record

from dualmask.config.load import ConfigError, load_run
from dualmask.curriculum import plan_at, total_steps
from dualmask.families.edit.curriculum import EditPlan
from dualmask.training.metrics import MetricsFile, Yardstick
from dualmask.training.profile import ProfiledSteps
from dualmask.training.progress import Progress, equal_cost
from launcher.costs import StepCosts, hardware_of, step_costs
from launcher.preflight import profiled_steps

QUICKSTART = load_run(Path(__file__).resolve().parents[3] / "configs" / "quickstart.yaml", [])
VOCABULARY = 2048
SECONDS = {
    ("filler", 1): 0.107,
    ("inserter", 1): 0.113,
    ("picker", 1): 0.459,
    ("joint", 1): 0.643,
    ("joint", 2): 0.810,
    ("joint", 3): 1.207,
}  # by stage and rounds: medians of a run on two cores


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def seconds_of(step: int) -> float:
    plan = EditPlan.of(plan_at(QUICKSTART.stages, step))
    return SECONDS[plan.stage.name, plan.rounds]


def estimates_over_truth(cost, shares: tuple[float, ...]) -> list[float]:
    """Where these shares of the run's time have passed."""
    total = total_steps(QUICKSTART.stages)
    whole = sum(seconds_of(step) for step in range(total))
    clock, wanted, result = Clock(), list(shares), []
    progress = Progress(0, total, cost=cost, clock=clock)
    for step in range(total):
        clock.seconds += seconds_of(step)
        progress.on_step(record(step))
        if wanted and clock.seconds >= wanted[0] * whole:
            wanted.pop(0)
            result.append(progress.seconds_left(step + 1) / (whole - clock.seconds))
    return result


def test_the_time_left_is_that_of_unlike_stages() -> None:
    costs = StepCosts(QUICKSTART, VOCABULARY)
    assert estimates_over_truth(costs.at, (0.1, 0.3, 0.5)) == pytest.approx([1, 1, 1], rel=0.3)
    assert max(estimates_over_truth(equal_cost, (0.1, 0.3, 0.5))) < 0.7, "then the planner is not needed"


def test_an_early_end_of_a_stage_costs_nothing() -> None:
    clock = Clock()
    progress = Progress(0, 40, cost=lambda step: 1.0 if step < 20 else 3.0, clock=clock)
    clock.seconds = 10.0
    for step in range(10):
        progress.on_step(record(step))
    progress.on_step(record(20))  # steps 10 to 19 were left out
    assert progress.seconds_left(21) == pytest.approx(10 / 13 * 19 * 3)


def test_rounds_that_must_be_earned_are_planned_in_full() -> None:
    earned = [
        stage.model_copy(
            update={"rollout": stage.rollout.model_copy(update={"add_round_every": None, "add_round_at": 0.5})}
        )
        if stage.name == "joint"
        else stage
        for stage in QUICKSTART.stages
    ]
    run = QUICKSTART.model_copy(update={"stages": tuple(earned)})
    costs, last = StepCosts(run, VOCABULARY), total_steps(run.stages) - 1
    assert costs.at(last) == StepCosts(QUICKSTART, VOCABULARY).at(last)
    assert costs.of(plan_at(run.stages, last)) < costs.at(last)  # nothing is earned yet


def test_what_the_planner_does_not_know_has_no_cost() -> None:
    reward = load_run(Path(__file__).resolve().parents[3] / "configs" / "reward.yaml", [])
    assert step_costs(reward, VOCABULARY) is None


def test_utilisation_is_of_planned_operations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = StepCosts(QUICKSTART, VOCABULARY)
    plan = plan_at(QUICKSTART.stages, 0)
    yardstick = Yardstick(costs.of, peak=10 * costs.at(0))
    assert yardstick.mfu(plan, seconds=0.5) == pytest.approx(0.2)
    assert Yardstick(costs.of, None).mfu(plan, 0.5) is None
    file, progress = MetricsFile(tmp_path / "metrics.jsonl", 0), Progress(0, 40)
    for observer in (file, progress):
        observer.on_step(record(0, mfu=0.2))
        observer.close("complete")
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["mfu"] == 0.2
    assert "MFU 20.0%" in capsys.readouterr().err


def test_cards_are_known_by_name() -> None:
    h100 = hardware_of("NVIDIA H100 80GB HBM3")
    assert h100 is not None
    assert h100.name == "H100 80 GB"
    assert hardware_of("NVIDIA H100 PCIe") is None
    assert hardware_of("NVIDIA GeForce RTX 4090") is None


def test_profiled_steps_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    x = torch.randn(8, 8)
    profile = ProfiledSteps(range(1, 3), tmp_path)
    for step, work in enumerate((torch.exp, torch.mm, torch.mm, torch.sin)):
        work(*[x] * (2 if work is torch.mm else 1))
        profile.on_step(record(step))
    profile.close("complete")
    trace, table = tmp_path / "steps-1-2.trace.json.gz", tmp_path / "steps-1-2.txt"
    with gzip.open(trace, "rt") as stream:
        names = [event.get("name") for event in json.load(stream)["traceEvents"]]
    assert names.count("aten::mm") == 2
    assert not {"aten::exp", "aten::sin"} & set(names)
    assert "aten::mm" in table.read_text()
    assert str(trace) in capsys.readouterr().err


def test_steps_that_a_resumed_run_has_behind_it_are_not_profiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ProfiledSteps(range(1, 3), tmp_path, first_step=5).close("complete")
    assert "nothing is profiled" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "--profile 20:22"),
        ("a:b", "--profile 20:22"),
        ("7:5", "give --profile 5:7"),
        ("5:40", "0 to 39"),
        ("0:50", "at most 50"),
    ],
)
def test_bad_ranges_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"--profile {text}: .*{said}"):
        profiled_steps(text, 40 if text != "0:50" else 1000)
