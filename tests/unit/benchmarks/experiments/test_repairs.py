"""What `benchmarks.experiments.repairs` reads off a model, and that its arms say what they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_span import VOCAB, make_model

from benchmarks.experiments import repairs
from benchmarks.experiments.trials import Trial
from dualmask.config.load import load_run
from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import EOS_ID
from dualmask.evaluation.continuation import Task
from dualmask.evaluation.report import find
from dualmask.families.span.evaluate import spans as span
from dualmask.families.span.gate_net import BOUND, CONTINUE, STOP
from dualmask.families.span.generate import write
from dualmask.families.span.model import SpanFusion

K = 7
CONFIG = "configs/spanfusion_small.yaml"


@pytest.fixture(scope="module")
def task() -> Task:
    sequences = np.random.default_rng(0).integers(6, VOCAB, (20, 18)).tolist()
    return span.make_task(sequences, width=K, cuts=2, limit=16, seed=0)


@pytest.fixture(scope="module")
def model(task: Task) -> SpanFusion:
    """Its gate tells the spans apart: behind the first step about half of them stop."""
    model = make_model().eval()
    first = torch.tensor(span.read_gold(model, task).entropy, dtype=torch.float32)
    with torch.no_grad():
        model.gate.last.weight[STOP] = 0
        usual = model.gate(first)[:, CONTINUE].median()
        model.gate.last.bias[CONTINUE] -= BOUND * torch.atanh(usual / BOUND)
    return model


def test_what_a_stop_leaves_open_is_what_the_filling_fills(model: SpanFusion, task: Task) -> None:
    """Of M places a step the steps in front of the stop write M each; the stop itself M, and the filling the rest."""
    rows = repairs.left_open(model, task)
    fixed = [find(rows, method=f"fixed:{steps}")["value"] for steps in (1, 2, 3, 4)]
    assert fixed == pytest.approx([5 / 7, 3 / 7, 1 / 7, 0])
    written = write(model, task.prompts, tokens=K, span=K, least=K, sampling=[GREEDY] * len(task.prompts))
    traces = [one.spans[0] for one in written]
    assert len({trace.steps for trace in traces}) > 1
    filled = [max(trace.order.count(trace.steps - 1) - 2, 0) / K for trace in traces]
    assert find(rows, method="learned")["value"] == pytest.approx(sum(filled) / len(filled))


def test_padding_that_is_seen_makes_a_batch_alike_and_moves_the_span(model: SpanFusion, task: Task) -> None:
    seen = repairs.padded(task, together=4)
    for start in range(0, len(task.prompts), 4):
        part = slice(start, start + 4)
        assert len({len(prompt) for prompt in seen.prompts[part]}) == 1
        assert max(map(len, task.prompts[part])) == len(seen.prompts[start])
    for prompt, other in zip(task.prompts, seen.prompts, strict=True):
        assert other == [*prompt, *[EOS_ID] * (len(other) - len(prompt))]
    assert seen.gold == task.gold
    plain, shifted = (span.read_gold(model, each).schedule for each in (task, seen))
    moved = np.array([len(a) != len(b) for a, b in zip(task.prompts, seen.prompts, strict=True)])
    assert 0 < moved.sum() < len(moved)
    assert (np.abs(plain - shifted).max(1) > 1e-3).tolist() == moved.tolist()


def test_the_other_order_shares_the_weights_and_leaves_the_model_alone(model: SpanFusion, task: Task) -> None:
    before = span.read_gold(model, task).schedule
    other = span.read_gold(repairs.in_order(model, "confidence"), task).schedule
    assert np.array_equal(span.read_gold(model, task).schedule, before)
    assert np.allclose(other[:, 0], before[:, 0], atol=1e-4)  # one step: there is no order
    assert not np.allclose(other[:, -1], before[:, -1], atol=1e-3)
    assert other.tolist() == span.read_gold(make_like(model, fill_order="confidence"), task).schedule.tolist()


def make_like(model: SpanFusion, **changes: str) -> SpanFusion:
    other = make_model(**changes).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_names_of_the_seed_are_swapped(model: SpanFusion, task: Task) -> None:
    rows = repairs.figures(model, task)
    for swapped, fast, accurate in ((False, 1, 4), (True, 4, 1)):
        named = repairs.named(rows, swapped=swapped)
        assert [(row["method"], row["value"]) for row in named] == [("fast", fast), ("accurate", accurate)]


def test_arms_are_written_as_they_are_called() -> None:
    run = load_run(CONFIG)
    pred = run.stages[-1].span.losses.pred  # type: ignore[union-attr]
    shown = {}
    for arm, changes in repairs.ARMS.items():
        changed = load_run(CONFIG, [change.replace("stages.0", f"stages.{len(run.stages) - 1}") for change in changes])
        shown[arm] = changed.stages[-1].span
    assert shown["repaired"] == run.stages[-1].span
    assert [shown[f"R9 {arm}"].detach_pred for arm in ("cut, pred loss", "open, pred loss")] == [True, False]
    assert [shown[f"R9 {arm}"].losses.pred for arm in ("cut, pred loss", "cut, no pred loss")] == [pred, 0]
    assert shown["R7 counter"].gate_gradient == "none"
    assert shown["R7 counter"].model_copy(update={"gate_gradient": "quality"}) == shown["R7 drawn stops"]


def test_rows_read_off_the_repaired_model_are_its_own(tmp_path) -> None:
    rows = [{"metric": "steps", "value": 1.0}, {"metric": "steps", "value": 4.0, "repair": "R11", "arm": "named here"}]
    whole = repairs.labelled(Trial.of("repaired", 2, tmp_path), rows)
    assert [(row["repair"], row["arm"]) for row in whole] == [("repaired", ""), ("R11", "named here")]
    part = repairs.labelled(Trial.of("R13 entropy", 2, tmp_path), rows)
    assert part == [{"repair": "R13", "arm": "entropy", "seed": 2, "metric": "steps", "value": 1.0}]
