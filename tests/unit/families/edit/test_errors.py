"""A stage whose texts are corrupted has the tables that its kinds of errors are looked up in."""

import pydoc_data.topics
from types import SimpleNamespace

import pytest
import torch
from tiny_rounds import make_model, rounds_plan

from dualmask.evaluation import texts
from dualmask.families.edit.config import EditAlarms
from dualmask.families.edit.runtime import task
from dualmask.families.edit.task import begin
from dualmask.ops.corruption import KINDS

LINES = [" ".join(text.split()) for text in sorted(pydoc_data.topics.topics.values())[:8]]


@pytest.mark.parametrize("kinds", [[], ["typo"], ["confuse"], ["typo", "confuse"]])
def test_a_stage_has_the_tables_of_its_kinds(kinds, loaded):
    weights = {kind: float(kind in [*kinds, "drop"]) for kind in KINDS}
    plan = rounds_plan(corruption=weights, starts={"corrupted": 1.0})
    errors = task(make_model(), plan.stage, SimpleNamespace(alarms=EditAlarms()), loaded.tokenizer).errors
    assert (errors.typos is not None, errors.confusions is not None) == ("typo" in kinds, "confuse" in kinds)


def test_start_states_are_confused(loaded):
    only = {kind: float(kind == "confuse") for kind in KINDS} | {
        "rate_low": 1.0,
        "rate_high": 1.0,
        "shuffle_share": 0.0,
    }
    plan = rounds_plan(corruption=only, starts={"corrupted": 1.0})
    (batch, *_) = texts.batches(LINES, loaded.tokenizer, 48, limit=8, shortest=24, device=torch.device("cpu"))
    errors = task(make_model(), plan.stage, SimpleNamespace(alarms=EditAlarms()), loaded.tokenizer).errors
    assert torch.equal(begin(batch, plan).tokens, batch.tokens)  # there is no table
    state = begin(batch, plan, errors)
    changed = (state.tokens != batch.tokens).any(1)
    assert changed.float().mean() > 0.9
