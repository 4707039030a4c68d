"""Files that say only what differs from another file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from test_config_load import TREE

from dualmask.config.load import load_run
from dualmask.config.tree import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TREE))
    return tmp_path


def load(folder: Path, text: str, *overrides: str):
    (folder / "run.yaml").write_text(text)
    return load_run(folder / "run.yaml", overrides)


def test_sections_are_changed_key_by_key_and_stages_by_name(folder: Path) -> None:
    run = load(folder, "base: base.yaml\nmodel: {hidden: 64}\nstages: {picker: {lr: {warmup_steps: 2}}}\n", "seed=7")
    base = load_run(folder / "base.yaml")
    assert (run.model.hidden, run.seed) == (64, 7)
    assert run.stages[1].lr == base.stages[1].lr.model_copy(update={"warmup_steps": 2})
    assert run.stages[0] == base.stages[0]
    assert run.model.heads == base.model.heads


def test_a_list_replaces_a_list(folder: Path) -> None:
    run = load(folder, f"base: base.yaml\nstages: {TREE['stages'][:1]}\n")
    assert [stage.name for stage in run.stages] == ["filler"]


def test_a_base_may_have_a_base(folder: Path) -> None:
    (folder / "middle.yaml").write_text("base: base.yaml\nname: middle\nseed: 5\n")
    run = load(folder, "base: middle.yaml\nname: top\n")
    assert (run.name, run.seed) == ("top", 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: run.yaml\n", "in a circle"),
        ("base: nowhere.yaml\n", "nowhere.yaml: cannot be read"),
        ("base: [a]\n", "base = ['a']: give the path"),
        ("base: base.yaml\nstages: {joint: {steps: 3}}\n", "stages.joint: the base has 0 entries of that name"),
        ("base: base.yaml\nstages: {picker: {stepz: 3}}\n", "stages.1.stepz is not a key"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_old_names_of_keys_are_told_apart(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"own_counts is not a key; it is called stages\.1\.rollout\.on_policy_counts now"
    ):
        load(folder, "base: base.yaml\nstages: {picker: {rollout: {own_counts: 0}}}\n")
