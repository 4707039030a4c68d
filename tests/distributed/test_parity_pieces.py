"""The maps of what was deleted from a gap (``model.told_pieces``): on several ranks what they are in one process."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import test_parity
import tiny
from test_parity import SPLIT_ALL, TENSOR

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

MAPS = ("filler.pieces.weight", "inserter.pieces.weight")
ROUNDS = copy.deepcopy(tiny.CONFIG["stages"][3]) | {"steps": 2}
ROUNDS["rollout"] |= {"told_deletions": 1.0, "teacher_forced_deletions": 0.7}
STAGES = [stage | {"steps": 2} for stage in tiny.CONFIG["stages"][:2]] + [ROUNDS]  # nothing is told in the first two
WHAT: dict[str, Any] = {"stages": STAGES, "model": {"told_pieces": 2}}
DATA_PARALLEL = {
    "zero3": {"set": [], "deepspeed": SPLIT_ALL},
    "zero1": {"set": ["parallel.zero_stage=1", "batch.micro=2"]},
}
TENSOR_PARALLEL = {"tp2_zero3": {"set": [TENSOR], "deepspeed": SPLIT_ALL}}


@pytest.fixture(scope="module")
def seen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """By variant; "one" is a single process without ZeRO."""
    results: dict[str, dict] = {}
    for ranks, tensor, variants in (
        (1, 1, {"one": {"set": ["parallel.zero_stage=0"]}}),
        (2, 1, DATA_PARALLEL),
        (2, 2, TENSOR_PARALLEL),
    ):
        folder = tmp_path_factory.mktemp(f"pieces-{ranks}-{tensor}")
        results |= test_parity.run_variants(ranks, tensor, variants, data, folder, **WHAT)
    return results


@pytest.mark.parametrize("variant", [*DATA_PARALLEL, *TENSOR_PARALLEL])
def test_parity_with_one_process(variant: str, seen: dict[str, dict]) -> None:
    test_parity.assert_same(seen[variant], test_parity.plain.Trained(**seen["one"]))


def test_the_maps_learn_here(seen: dict[str, dict]) -> None:
    for name in MAPS:
        assert seen["one"]["weights"][name].abs().max() > 2e-5, name  # more than ranks may differ by
