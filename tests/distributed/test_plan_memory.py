"""The planner's bytes are those of two real ranks, within 10 %. More shapes: ``python -m benchmarks.plan_memory``."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.memory_of_ranks import measure_making
from benchmarks.plan_memory import FILLER, INSERTER, LM, WIDE, Shape, language_model, parallel, play, rows
from benchmarks.ranks import result_of
from benchmarks.runs import joint
from launcher.planner.memory import at_initialize

SMALL = {"max_length": 96, "filler_layers": 2, "inserter_layers": 1, "picker_layers": 1}
SHAPES = {
    "filler": Shape(FILLER, SMALL, parallel=parallel(0), ranks=2),
    "inserter": Shape(INSERTER, SMALL, parallel=parallel(1), ranks=2),
    "joint": Shape(joint(2, 2), SMALL, {"sequences": 32}, parallel(3, bf16=True), ranks=2),
    "autoregressive": Shape(
        LM, language_model("autoregressive", 2) | {"max_length": 96}, parallel=parallel(2), ranks=2
    ),
}
SPLIT = {"filler_layers": 6, "max_length": 96}
SPLIT_SHAPES = {
    name: Shape(FILLER, SPLIT, parallel=parallel(0, 2) | {"sequence": name == "tokens split"}, ranks=2)
    for name in ("tokens whole", "tokens split")
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


@pytest.mark.distributed
def test_sequence_parallel_ranks_keep_less() -> None:
    """The peak is not compared: what tokens are gathered into for a moment is not planned, and weighs in small ones."""
    seen = dict(play(SPLIT_SHAPES, timeout=300))
    for name, shape in SPLIT_SHAPES.items():
        ratios = {row["kind"]: row["value"] for row in rows(name, shape, seen[name]) if row["kind"] != "total"}
        assert ratios == {kind: pytest.approx(1, abs=0.1) for kind in ratios}
    whole, split = (seen[name]["bytes"]["activations"] for name in SPLIT_SHAPES)
    assert split < 0.85 * whole


@pytest.mark.distributed
def test_bytes_of_making_an_engine() -> None:
    """What DeepSpeed makes of a model that is whole on each rank."""
    each = {f"ZeRO-{zero} {bf16}": Shape(FILLER, WIDE, parallel=parallel(zero, bf16=bf16), ranks=2)
            for zero, bf16 in ((0, True), (1, False), (2, True))}  # fmt: skip
    settings = {name: (shape.run, shape.vocab_size) for name, shape in each.items()}
    made = result_of("the ranks", partial(measure_making, settings, 1), 2, timeout=300, cpu=True)
    for name, (run, vocab_size) in settings.items():
        assert at_initialize(run, run.stages[0], vocab_size, 2) == pytest.approx(made[name], rel=0.05), name
