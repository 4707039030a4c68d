"""The one walk of a step's passes: its windows, and where gradients come back."""

import pytest
from stages import make_stage
from test_flops import CASES, DUALMASK, SPAN, SPAN_MODULES

from dualmask.config.stage import StageConfig
from launcher.planner.parameters import matrices
from launcher.planner.passes import Shape, expected, flat, walk


def stage_of(change: dict) -> StageConfig:
    return make_stage({"steps": 1, "lr": {"peak": 1e-3}} | change)


@pytest.mark.parametrize("case", CASES)
def test_what_learns_is_what_the_stage_teaches(case):
    config, change = CASES[case]
    stage, modules = stage_of(change), matrices(config, 200)
    passes = list(flat(walk(Shape(config, 200, 6), stage)))
    parts = {one.module for one in passes} - {"lookup", "logits", "mix"}
    learning = {one.module for one in passes if one.gradient == "learn"} - {"lookup", "logits"}
    assert parts <= modules.keys()
    assert learning == set(stage.train) & parts


@pytest.mark.parametrize(("rounds", "window", "lengths"), [(4, 2, [2, 2]), (3, 2, [2, 1]), (2, 4, [2])])
def test_windows_share_the_rounds(rounds, window, lengths):
    change = CASES["rounds"][1] | {"rollout": {"rounds": rounds, "window": window}}
    windows = walk(Shape(DUALMASK, 200, 6), stage_of(change))
    assert [len(each) for each in windows] == lengths
    heads = [played for each in windows for played in each[:1]]
    assert all(one.module != "mix" for played in heads for one in played)  # nothing is handed into a window


def test_tokens_follow_the_batch_and_the_draws():
    config, change = CASES["rounds"]
    small, large = (Shape(config, 200, sequences) for sequences in (6, 12))
    stage = stage_of(change)
    one, two = (list(flat(walk(shape, stage, expected(shape, stage)))) for shape in (small, large))
    assert [2 * each.tokens for each in one] == pytest.approx([each.tokens for each in two])
    assert [each.gradient for each in one] == [each.gradient for each in two]


def test_a_span_is_refined_as_often_as_the_model_says_and_once_more_by_the_teacher():
    stage = stage_of({"name": "span", "train": SPAN_MODULES, "span": {"lengths": [4, 8], "teacher": "ema"}})
    passes = list(flat(walk(Shape(SPAN, 200, 6), stage)))
    steps = [one for one in passes if one.module == "encoder"]
    assert [one.twin for one in steps] == [False] * SPAN.span.g_max + [True] * SPAN.span.g_max
    assert {one.tokens for one in steps} == {6 * 6.0}
    assert all(one.gradient == "none" for one in passes if one.twin)
