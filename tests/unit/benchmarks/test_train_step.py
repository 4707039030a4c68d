"""The floor is made of the step's own matrix products; ratios are of the same repeat; what is missing is named."""

from __future__ import annotations

import json
import sys
from collections import Counter
from math import prod
from pathlib import Path

import pytest
import torch

from benchmarks import matrix_products, operators, parallel, train_step
from benchmarks.engines import passes
from benchmarks.matrix_products import Product
from benchmarks.runs import SIZES, Size, random_batch
from benchmarks.step_arms import Case, make
from benchmarks.timing import Seconds
from dualmask.curriculum import plan_at
from dualmask.evaluation.report import find

TINY = Size(hidden=32, layers=2, heads=2, length=24, sequences=6, vocabulary=200)


def operations(products: Counter[Product]) -> float:
    """A multiplication and an addition count as two."""
    return sum(2.0 * prod(each.left.shape) * each.right.shape[-1] * times for each, times in products.items())


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("stage", ["lm", "filler"])
def test_recorded_products_are_those_that_the_planner_counts(stage: str, checkpointing: bool) -> None:
    case = Case(stage, TINY, checkpointing=checkpointing)
    taught, _ = make(case)
    plan, batch = plan_at(case.run().stages, 0), random_batch(TINY, 0)
    products = matrix_products.record(lambda: passes(taught, batch, plan))
    assert operations(products) == pytest.approx(case.cost().total, rel=0.03)
    matrix_products.loop(products)()  # the shapes fit


def test_products_lie_in_memory_as_they_did() -> None:
    a, b = torch.randn(3, 4).t(), torch.randn(3, 5)
    products = matrix_products.record(lambda: a @ b)
    (product,) = products
    assert product.left.strides == (1, 4)
    assert operations(products) == 2 * 3 * 4 * 5


def test_ratios_are_of_the_same_repeat() -> None:
    def series(*wall: float) -> list[Seconds]:
        return [Seconds(each, each / 2) for each in wall]

    times = {
        "matmul": series(1, 2, 10), "plain": series(2, 4, 20), "hf": series(2, 8, 30), "zero0": series(2, 4, 20),
        "zero1": series(2, 4, 20), "zero3": series(4, 8, 40), "trainer": series(2, 5, 30),
    }  # fmt: skip
    rows = train_step.rows(Case("lm", TINY), times)
    wall = {"clock": "wall", "stage": "lm"}
    assert find(rows, metric="flops_share", arm="zero3", **wall)["value"] == 0.25
    assert find(rows, metric="ratio_vs_hf", arm="zero0", **wall)["value"] == 1.5
    assert find(rows, metric="trainer_overhead", over="plain", **wall)["value"] == 0.25
    assert find(rows, metric="flops_share", arm="zero3", clock="cpu", stage="lm")["value"] == 0.25


def test_shares_of_one_rank() -> None:
    one, two = parallel.ONE, parallel.Layout(2, 1)
    times = {(one, 1): [Seconds(4, 4)], (two, 1): [Seconds(2.5, 2)]}
    rows = parallel.rows(Case("lm", TINY), times)
    arm = "TP1×DP2 ZeRO-1"
    assert find(rows, metric="share_of_one", arm=arm, clock="wall")["value"] == pytest.approx(0.8)
    assert find(rows, metric="share_of_one", arm=arm, clock="cpu")["value"] == 1
    assert find(rows, metric="tokens_per_second", arm=arm)["value"] == 6 * 24 / 2.5


def test_kinds_of_work() -> None:
    spent = operators.by_kind({"aten::mm": (5.0, 2), "aten::addmm": (6.0, 1), "aten::mul": (1.0, 9), "Hook": (2.0, 1)})
    assert list(spent) == ["matrix products", operators.PYTHON, operators.REST]
    assert spent["matrix products"] == operators.Spent(11.0, 3, "aten::addmm")


def test_without_transformers_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert train_step.main(["--json", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert "pip install" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_every_arm_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    out = tmp_path / "out.json"
    options = ["--stages", "lm", "filler", "joint", "--sizes", "tiny", "--repeats", "2", "--without", "hf"]
    assert train_step.main(["--json", str(out), *options]) == 0
    result = json.loads(out.read_text())
    assert {row["stage"] for row in result["rows"]} == {"lm", "filler", "joint"}
    assert 1 < find(result["rows"], metric="time_ratio_l8_l1", clock="cpu")["value"] < 12
