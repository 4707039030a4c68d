"""Stages whose texts have errors of words: their tables, their drafts, the thresholds of what has learnt from them."""

from __future__ import annotations

import json
import pydoc_data.topics
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stages import make_stage
from tiny_rounds import make_model, rounds_plan
from torch.nn.functional import pad

from dualmask.config.corruption import KINDS
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.evaluation import texts
from dualmask.families.edit import runtime
from dualmask.families.edit.checks import check_run
from dualmask.families.edit.config import EditAlarms
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.evaluate import calibrate as calibration
from dualmask.families.edit.evaluate import search as thresholds
from dualmask.families.edit.evaluate.corrupted import ALL_KINDS, corruption, make_wrong, right_texts
from dualmask.families.edit.evaluate.search import search
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.inference.loading import Loaded

LINES = [" ".join(text.split()) for text in sorted(pydoc_data.topics.topics.values())]
WORDS_ALONE: dict[str, Any] = dict.fromkeys(KINDS, 0.0) | {"natural": {"share": 1.0, "rate_low": 0.2, "rate_high": 0.3}}
FILLER = {"name": "filler", "steps": 10, "train": ["filler"], "lr": {"peak": 1e-3}, "corrupted": 1.0}


def holes_plan() -> EditPlan:
    return EditPlan.of(plan_at([make_stage(FILLER | {"corruption": WORDS_ALONE})], 3))


def a_batch(loaded: Loaded) -> Batch:
    (batch,) = texts.batches(LINES, loaded.tokenizer, 48, limit=24, shortest=24)
    return replace(batch, tokens=pad(batch.tokens, (0, 16)))  # room for what is longer than it should be


@pytest.mark.parametrize("plan", [holes_plan(), rounds_plan(corruption=WORDS_ALONE, starts={"corrupted": 1.0})])
def test_drafts_have_errors_of_words_and_are_aligned(plan: EditPlan, loaded: Loaded) -> None:
    errors = runtime.task(make_model(), plan.stage, SimpleNamespace(alarms=EditAlarms()), loaded.tokenizer).errors
    assert errors.natural is not None
    batch = a_batch(loaded)
    ahead = runtime.prepare_ahead(batch, plan, loaded.tokenizer)
    assert torch.equal(ahead.tokens, batch.tokens)
    assert (ahead.draft != batch.tokens).any(1).float().mean() > 0.8
    right = ahead.match >= 0
    assert torch.equal(ahead.draft[right], batch.tokens.gather(1, ahead.match.clamp_min(0))[right])
    assert (~right & ahead.start.present).any()


def test_a_missing_package_is_said_before_a_run_starts(monkeypatch: pytest.MonkeyPatch, loaded: Loaded) -> None:
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    run = SimpleNamespace(stages=[holes_plan().stage], model=loaded.config)
    with pytest.raises(ValueError, match=r"corruption.natural needs lemminflect"):
        check_run(run, loaded.tokenizer)
    check_run(SimpleNamespace(stages=[make_stage(FILLER)], model=loaded.config), loaded.tokenizer)


def test_natural_is_a_kind_of_the_suite_editing(loaded: Loaded) -> None:
    assert corruption(0.1, ["natural"]).natural.share == 1.0
    assert corruption(0.1, calibration.HALF_NATURAL).natural.share == 0.5
    right = right_texts(LINES, loaded, limit=16, typos=True)
    pairs = make_wrong(right, loaded, rate=0.3, kinds=["natural"])
    assert sum(map(list.__ne__, pairs.sources, pairs.targets)) > 8
    with pytest.raises(ValueError, match=f"is not one of {', '.join(ALL_KINDS)}"):
        corruption(0.1, ["strange"])


def test_what_has_learnt_from_errors_of_words_is_calibrated_on_them(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    make = calibration.make_wrong

    def remember(right: Any, model: Loaded, **how: Any) -> Any:
        asked.append(how["kinds"])
        return make(right, model, **how)

    monkeypatch.setattr(calibration, "make_wrong", remember)
    monkeypatch.setattr(thresholds, "GRID", thresholds.GRID[:1])
    few = LINES[:12]
    for stages in ([], [make_stage(FILLER)], [holes_plan().stage]):
        files = runtime.finish(loaded, few, None, stages)
        assert json.loads(files["decision.json"])["curve"]
    assert asked == [calibration.KINDS, calibration.KINDS, calibration.HALF_NATURAL]


def test_the_search_goes_on_from_the_best_point() -> None:
    def measure(point: OperatingPoint) -> float:
        return -abs(point.fill_threshold - 0.7) - abs(point.edit_threshold - 0.2) - abs(point.gate_threshold - 0.3)

    tried = search(measure, lambda score: score)
    best = max(tried, key=tried.__getitem__)
    assert (best.fill_threshold, best.edit_threshold, best.gate_threshold) == (0.7, 0.2, 0.3)
    assert len(tried) <= 56
