"""How stages are judged on held-out texts: by figures that do not depend on how the texts are divided into batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_rounds
import tiny_span
import torch
from hypothesis import given
from hypothesis import strategies as st
from stages import make_stage, make_task
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.evaluation.ranking import auc
from dualmask.families.edit import measure
from dualmask.families.edit.measure import BINS, area, histograms, shortened
from dualmask.families.edit.model import DraftScores
from dualmask.families.registry import find
from dualmask.families.task import Task
from dualmask.ops.alignment import align

LR = {"peak": 1e-3}
STAGES: dict[str, dict[str, Any]] = {
    "filler": {"name": "filler", "train": ["filler"]},
    "inserter": {"name": "inserter", "train": ["inserter"], "losses": {"ptr_count": 1.0}},
    "joint": {
        "name": "joint",
        "train": tiny_rounds.ALL,
        "losses": tiny_rounds.EVERY_LOSS | {"gate": 1.0, "gate_cost": 0.1},
        "rollout": {"rounds": 3, "window": 2, "starts": tiny_rounds.EVERY_START},
    },
}


def judged(task: Task, plan: StepPlan, batches: list[Batch]) -> dict[str, float]:
    by, sums = task.eval().measure(), dict[str, Tensor]()
    for batch in batches:
        with torch.no_grad():
            for name, part in by.sums(batch, plan).items():
                sums[name] = sums.get(name, 0.0) + part.double()
    return by.figures(sums)


def plan_of(stage: Any) -> StepPlan:
    return StepPlan(0, 0, stage, stage.steps - 1)


def parts(batch: Batch, *sizes: int) -> list[Batch]:
    ends = np.cumsum(sizes)
    return [batch.rows(slice(int(end - size), int(end))) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("name", STAGES)
def test_figures_do_not_depend_on_the_batches(name: str) -> None:
    stage = make_stage({"steps": 5, "lr": LR, **STAGES[name]})
    task, batch = make_task(tiny_rounds.make_model(), stage), tiny_rounds.make_batch(12)
    whole = judged(task, plan_of(stage), [batch])
    assert whole == pytest.approx(judged(task, plan_of(stage), parts(batch, 5, 1, 6)), rel=1e-6, nan_ok=True)
    assert whole.keys() <= find("dualmask").dev_figures.keys()
    assert whole["dev_bits"] == pytest.approx(whole["dev_filler"] / math.log(2))
    assert task.measure().best in whole


def test_any_other_family() -> None:
    """A family that says nothing of it is judged by its loss, a text at a time."""
    stage = make_stage(
        {"name": "span", "steps": 5, "train": ["decoder", "encoder", "gate"], "lr": LR, "span": {"lengths": [6]}}
    )
    task = make_task(tiny_span.make_model(), stage)
    assert task.measure().texts_at_once == 1
    batch = Batch(torch.randint(6, 60, (4, 20)), torch.full((4,), 20), torch.arange(4))
    each = parts(batch, 1, 1, 1, 1)
    figures = judged(task, plan_of(stage), each)
    assert figures == judged(task, plan_of(stage), each[::-1])
    with torch.no_grad():
        losses = [float(task.window(text, plan_of(stage), range(1), None).total) for text in each]
    assert figures == {"dev_loss": pytest.approx(np.mean(losses), rel=1e-6)}


@pytest.mark.parametrize(("knows", "expected"), [(True, 1.0), (False, 0.5)])
def test_areas_of_a_picker_and_gate_that_know_what_is_wrong(
    knows: bool, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, batch = make_stage({"steps": 5, "lr": LR, **STAGES["joint"]}), tiny_rounds.make_batch(12)
    task = make_task(tiny_rounds.make_model(), stage)
    right, read = shortened(batch, 20 * 3 // 4), task.model.read

    def scripted(draft: Batch, *arguments: Any) -> DraftScores:
        scores = read(draft, *arguments)
        wrong = (align(draft.tokens, draft.length, right.tokens, right.length) < 0) & draft.deletable & knows
        logits = replace(scores.logits, wrong=torch.where(wrong, 5.0, -5.0))
        return replace(scores, logits=logits, gate_logit=torch.where(wrong.any(1), 2.0, -2.0))

    monkeypatch.setattr(task.model, "read", scripted)
    figures = judged(task, plan_of(stage), [batch])
    assert figures["dev_token_auc"] == figures["dev_gate_auc"] == expected


def test_edits_of_a_round_that_puts_everything_right(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, batch = make_stage({"steps": 5, "lr": LR, **STAGES["joint"]}), tiny_rounds.make_batch(12)
    task = make_task(tiny_rounds.make_model(), stage)
    before = judged(task, plan_of(stage), [batch])
    monkeypatch.setattr(measure, "play_round", lambda *_, **__: shortened(batch, 20 * 3 // 4))
    figures = judged(task, plan_of(stage), [batch])
    assert figures["dev_f05"] == figures["dev_untouched"] == 1
    assert before["dev_f05"] < 1


@given(st.data())
def test_area_is_that_of_the_ranking(data: st.DataObject) -> None:
    """Of scores that a bin can tell apart; ties count half."""
    number = data.draw(st.integers(2, 40))
    score = data.draw(
        st.lists(st.sampled_from([-30.0, -1.0, -0.5, -1e-6, 0.0, 1e-6, 0.25, 7.0]), min_size=number, max_size=number)
    )
    positive = data.draw(st.lists(st.booleans(), min_size=number, max_size=number))
    counts = histograms(torch.tensor(score), torch.tensor(positive))
    assert counts.shape == (2, BINS)
    assert counts.sum() == number
    expected = float(auc(np.array(score), np.array(positive))[0])
    assert area(counts) == pytest.approx(expected, nan_ok=True)


def test_area_hardly_loses_by_its_bins() -> None:
    draw = np.random.default_rng(0)
    positive = draw.random(20_000) < 0.3
    for scale in (1e-3, 1.0, 100.0):
        score = (draw.normal(size=20_000) + positive) * scale
        counts = histograms(torch.tensor(score), torch.tensor(positive))
        assert area(counts) == pytest.approx(float(auc(score, positive)[0]), abs=1e-4)
