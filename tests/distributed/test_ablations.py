"""`experiments.ablations`: arms differ in what they say and begin alike; what is finished is not done again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from benchmarks.experiments import ablations, trials
from dualmask.config.load import load_run
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.model import DualMask
from dualmask.nn.parallel import mesh
from dualmask.training.export import write_export
from dualmask.training.tensor_file import Tensors


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data that has a held-out part: the words of the training part in another order."""
    words = Tokenizer(data / "tokenizer.model").decode(range(60, tiny.VOCAB)).split()
    texts = [" ".join(words[start::7] * 3) for start in range(7)]
    (data / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tiny.write_config(tmp_path_factory.mktemp("ablations"), data)


@pytest.fixture(scope="module")
def init(config: Path) -> Path:
    run = load_run(config)
    mesh.single_process()
    torch.manual_seed(4)
    weights = {name: value.detach() for name, value in DualMask(run.model, tiny.VOCAB).named_parameters()}
    write_export(config.parent / "model", Tensors.of(weights), run.model, tiny.VOCAB, run.data.path / "tokenizer.model")
    return config.parent / "model"


def start(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["ablations", *map(str, arguments)])
    return ablations.main()


@pytest.mark.distributed
def test_arms_are_trained_once_and_measured(config: Path, init: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    for name, value in tiny.environment().items():
        monkeypatch.setenv(name, value)
    out, runs = tmp_path / "out.json", tmp_path / "runs"
    where = ["--config", config, "--from", init, "--json", out, "--runs", runs, "--limit", 8, "--seeds", 3]
    assert start(monkeypatch, *where, "--steps", 1, "--arms", "no own-draft labels") == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["figure"] for row in rows] == list(ablations.FIGURES)
    assert {(row["arm"], row["seed"]) for row in rows} == {("no own-draft labels", 3)}
    assert "no own-draft" in capfd.readouterr().out
    arm = yaml.safe_load((runs / "no-own-draft-labels-3.yaml").read_text())
    assert [stage["name"] for stage in arm["stages"]] == ["joint"]
    assert arm["stages"][0]["rollout"]["own_draft_weight"] == 0
    assert arm["seed"] == arm["data"]["shuffle_seed"] == 3

    def untouched(*_: object, **__: object) -> None:
        raise AssertionError("a finished arm is trained again")

    monkeypatch.setattr(trials.subprocess, "run", untouched)
    assert start(monkeypatch, *where, "--steps", 1, "--arms", "no own-draft labels") == 0
    assert json.loads(out.read_text())["rows"] == rows
    with pytest.raises(AssertionError, match="trained again"):
        start(monkeypatch, *where, "--steps", 2, "--arms", "no own-draft labels")


def test_every_arm_changes_the_stage(config: Path, init: Path, tmp_path: Path) -> None:
    run = load_run(config)
    stages = {}
    for arm in ablations.ARMS:
        trial = trials.Trial.of(arm, 1, tmp_path)
        trials.write_config(trial, run, init, ablations.ARMS[arm])
        stages[arm] = load_run(trial.config).stages[0]
    assert stages["full"] == run.stages[-1]
    assert len({stage.model_dump_json() for stage in stages.values()}) == len(ablations.ARMS)


def test_every_arm_changes_the_recipe(tmp_path: Path) -> None:
    run = load_run("configs/quickstart.yaml")
    arguments = argparse.Namespace(origin=None, scale=0.1, steps=None)
    arms = {}
    for arm, changes in ablations.changes_of(run, arguments).items():
        trial = trials.Trial.of(arm, 1, tmp_path)
        trials.write_config(trial, run, None, changes, slice(None))
        arms[arm] = load_run(trial.config)
    assert [stage.steps for stage in arms["full"].stages] == [round(0.1 * stage.steps) for stage in run.stages]
    assert sum(stage.steps for stage in arms["AdamW"].stages) > sum(stage.steps for stage in arms["full"].stages)
    assert not any("confuse" in stage.kinds_of_errors for stage in arms["random tokens as mistakes"].stages)
    assert len({str((arm.optimizer, arm.stages)) for arm in arms.values()}) == len(ablations.RECIPE)


def test_a_run_without_that_checkpoint_is_named(config: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    where = ["--config", config, "--json", tmp_path / "out.json", "--runs", tmp_path / "runs"]
    assert start(monkeypatch, *where, "--from", tmp_path / "run") == 2
    assert "the checkpoint of step 14, where stage joint begins" in capsys.readouterr().err
    assert start(monkeypatch, *where, "--from", tmp_path / "run", "--arms", "none") == 2
    assert "'none' is not one of full," in capsys.readouterr().err
