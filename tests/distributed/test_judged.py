"""A run that is judged while it trains: the same figures on any ranks and behind any restart, and it is not changed."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import warm

from dualmask.core import manifest
from dualmask.training.checkpoint import TrainingState
from dualmask.training.export import export_checkpoint
from dualmask.training.metrics import read_evals, read_lines

pytestmark = pytest.mark.distributed

NOWHERE = 1e-30  # a learning rate


def stages(picker_lr: float, joint_lr: float) -> list[dict[str, Any]]:
    filler, _, picker, joint = copy.deepcopy(tiny.CONFIG["stages"])
    picker |= {"steps": 8, "train": ["picker", "inserter", "gate"], "lr": {"peak": picker_lr}}
    joint |= {"steps": 5, "lr": {"peak": joint_lr, "decay": "constant"}}
    joint["rollout"] = joint["rollout"] | {"rounds": 2}
    return [filler, picker, joint]


PATIENT = {
    "stages": stages(NOWHERE, 3e-3),  # nothing gets better in the second one
    # nine texts on two ranks, four at a time: in its second batch one of the ranks has none
    "eval": {"every_steps": 2, "sequences": 9, "patience": 2},
    "checkpoint": {"every_steps": 3, "keep_last": 99},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def dev_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("with-dev") / "tiny", dev=13)


@pytest.fixture(scope="module")
def patient(dev_data: Path, folder: Path) -> dict[int, Path]:
    """The run folder by number of ranks."""
    for ranks in (1, 2):
        warm.train(ranks, tiny.write_config(folder, dev_data, f"patient-{ranks}", **PATIENT))
    return {ranks: folder / f"patient-{ranks}" for ranks in (1, 2)}


def evals(output: Path) -> list[dict[str, Any]]:
    """Without what depends on the clock."""
    return [record | {"seconds": None} for record in read_evals(output / "metrics.jsonl")]


def steps(output: Path) -> list[dict[str, Any]]:
    timed = ("tokens_per_second", "data_wait")
    lines = (record for _, record in read_lines(output / "metrics.jsonl"))
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def test_figures_do_not_depend_on_the_ranks(patient: dict[int, Path]) -> None:
    one, two = (evals(patient[ranks]) for ranks in (1, 2))
    assert [record["step"] for record in one] == [record["step"] for record in two]
    assert {"dev_loss", "dev_bits", "dev_inserter", "dev_f05", "dev_token_auc", "dev_gate_auc"} <= one[-1][
        "eval"
    ].keys()
    for mine, theirs in zip(one, two, strict=True):
        assert mine["eval"] == pytest.approx(theirs["eval"], rel=1e-6, nan_ok=True)


def test_a_stage_that_gets_no_better_ends(patient: dict[int, Path]) -> None:
    """Its steps that are left are left out: the next stage begins with the number that it always has."""
    for output in patient.values():
        made = [record["step"] for record in steps(output) if record["stage"] == "picker"]
        assert made == [5, 6, 7, 8, 9]
        judged = [record for record in evals(output) if record["stage"] == "picker"]
        assert [(record["step"], record["best"], record["ends_stage"]) for record in judged] == [
            (5, True, False),
            (7, False, False),
            (9, False, True),
        ]
        joint = [record["step"] for record in steps(output) if record["stage"] == "joint"]
        assert joint[0] == 13
        assert (output / "export" / "model.safetensors").is_file()


# in the middle of waiting for something better; where that has ended
@pytest.mark.parametrize(("ranks", "begin"), [(2, 9), (1, 13)])
def test_resumed(ranks: int, begin: int, patient: dict[int, Path], dev_data: Path, folder: Path) -> None:
    """The very same figures, the same best, the same end of the stage."""
    config = tiny.write_config(folder, dev_data, f"resumed-{ranks}-{begin}", **PATIENT)
    checkpoint = patient[ranks] / "checkpoints" / f"step-{begin:08d}"
    warm.train(ranks, config, "--resume", checkpoint)
    output = config.with_suffix("")
    assert evals(output) == [record for record in evals(patient[ranks]) if record["step"] >= begin]
    assert steps(output) == [record for record in steps(patient[ranks]) if record["step"] >= begin]
    last = max((output / "checkpoints").glob("step-*"))
    assert TrainingState.read(last).judged == TrainingState.read(patient[ranks] / "checkpoints" / last.name).judged


def test_the_best_is_kept_and_exported_and_training_is_not_changed(dev_data: Path, folder: Path) -> None:
    """Under ZeRO-3 on two ranks, in a last stage that ruins the model, from step to step more."""
    ruined = stages(3e-3, 1.0)
    ruined[-1]["lr"]["warmup_steps"] = 5
    what = {"stages": ruined, "checkpoint": {"every_steps": 1, "keep_last": 1}}
    judged = {"every_steps": 1, "sequences": 9, "metric": "dev_loss", "export_best": True}
    warm.train(2, tiny.write_config(folder, dev_data, "plain", **what))
    warm.train(2, tiny.write_config(folder, dev_data, "best", **what, eval=judged))
    plain, best = folder / "plain", folder / "best"
    assert steps(best) == steps(plain)
    last_stage = [record for record in evals(best) if record["stage"] == "joint"]
    losses = [math.inf if record["eval"]["dev_loss"] is None else record["eval"]["dev_loss"] for record in last_stage]
    least = last_stage[losses.index(min(losses))]["step"] + 1
    assert least < 18, "the last step is the best: nothing is tested"
    kept = sorted(path.name for path in (best / "checkpoints").iterdir())
    assert kept == [f"step-{least:08d}", "step-00000018"]
    export_checkpoint(best / "checkpoints" / kept[0], folder / "exported")
    model = "model.safetensors"
    assert manifest.digest(best / "export" / model) == manifest.digest(folder / "exported" / model)
    assert manifest.digest(best / "export" / model) != manifest.digest(plain / "export" / model)
    for gone in (best / "export", best / "checkpoints" / kept[0]):
        shutil.rmtree(gone)
    assert "eval.export_best: " in warm.train(2, folder / "best.yaml"), (
        "the best is lost: it is said, and the last is taken"
    )
    assert manifest.digest(best / "export" / model) == manifest.digest(plain / "export" / model)


def test_data_without_a_dev_part(data: Path, folder: Path) -> None:
    attempt = warm.Ranks(1, tiny.write_config(folder, data, "no-dev", eval={"every_steps": 2}))
    assert attempt.codes() == [2]
    assert "eval.every_steps=2 measures the dev part" in attempt.output()
    assert "split.dev above 0" in attempt.output()
