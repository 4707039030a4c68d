"""The planner's bytes are those of two real ranks, within 10 %. More shapes: ``python -m benchmarks.plan_memory``."""

from __future__ import annotations

import pytest

from benchmarks.plan_memory import FILLER, INSERTER, LM, Shape, language_model, parallel, play, rows
from benchmarks.runs import joint

SMALL = {"max_length": 96, "filler_layers": 2, "inserter_layers": 1, "picker_layers": 1}
SHAPES = {
    "filler": Shape(FILLER, SMALL, parallel=parallel(0), ranks=2),
    "inserter": Shape(INSERTER, SMALL, parallel=parallel(1), ranks=2),
    "joint": Shape(joint(2, 2), SMALL, {"sequences": 32}, parallel(3, bf16=True), ranks=2),
    "autoregressive": Shape(
        LM, language_model("autoregressive", 2) | {"max_length": 96}, parallel=parallel(2), ranks=2
    ),
}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, int]]:
    return dict(play(SHAPES, timeout=300))


@pytest.mark.distributed
@pytest.mark.parametrize("name", SHAPES)
def test_bytes_of_a_rank(name: str, measured: dict[str, dict[str, int]]) -> None:
    ratios = {row["kind"]: row["value"] for row in rows(name, SHAPES[name], measured[name])}
    assert {"weights", "gradients", "adam", "activations", "total"} <= ratios.keys()
    assert ratios == {kind: pytest.approx(1, abs=0.1) for kind in ratios}
