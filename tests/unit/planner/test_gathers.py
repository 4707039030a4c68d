"""The rules by which ZeRO-3 gathers and gives up, on orders of calls that one can follow by hand. That they are
DeepSpeed's is for tests/distributed/test_traffic.py to show."""

from pathlib import Path

import pytest

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.load import load_run
from launcher.planner.gathers import FORGETFUL, Distances, Gathers, Visit, count
from launcher.planner.traffic import BUCKET, ring, traffic

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
SIZE = {"a": 10, "b": 20, "c": 30}
NEVER_AHEAD = Distances(reuse=10**6, ahead=0, persistent=0)


def order(*calls: str) -> list[Visit]:
    """ "a": forward without, "a+": with a gradient to come back; "-a": backward."""
    kinds = {"+": "fed", "-": "backward"}
    return [Visit(call.strip("+-"), kinds.get((call.strip("abc") or " ")[0], "forward")) for call in calls]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Distances()),  # DeepSpeed's own
        (["parallel.max_reuse_distance=5e9"], Distances(reuse=5 * 10**9, live=5 * 10**9)),
        (["parallel.max_reuse_distance=0"], Distances(reuse=0)),
        (["parallel.max_reuse_distance=7", "parallel.max_live_parameters=0"], Distances(reuse=7, live=0)),
    ],
)
def test_distances_are_those_that_deepspeed_is_given(overrides, expected):
    run = load_run(QUICKSTART, overrides)
    zero = deepspeed_config(run, run.stages[0], data_size=2, cuda=True)["zero_optimization"]
    keys = ("max_reuse_distance", "prefetch_bucket_size", "max_live_parameters", "param_persistence_threshold")
    assert Distances.of(run.parallel) == expected == Distances(*(zero[f"stage3_{key}"] for key in keys))
    assert zero["reduce_bucket_size"] == BUCKET


def test_kept_from_forward_to_backward_if_it_is_near():
    calls = order("a+", "b+", "c+", "-c", "-b", "-a")
    assert count(calls, SIZE, SIZE, NEVER_AHEAD) == Gathers(moved=60, most=60, once=60)
    assert count(calls, SIZE, SIZE, FORGETFUL) == Gathers(moved=120, most=30, once=60)


def test_distance_counts_elements_between():
    calls = order("a+", "b+", "c+", "-c", "-b", "-a")  # between the calls of b lie 60 elements, of a 100
    assert count(calls, SIZE, SIZE, Distances(reuse=60, ahead=0)).moved == 60 + SIZE["a"] + SIZE["b"]
    assert count(calls, SIZE, SIZE, Distances(reuse=61, ahead=0)).moved == 60 + SIZE["a"]


def test_persistent_parameters_do_not_move():
    assert count(order("a", "b", "a"), SIZE, SIZE | {"b": 0}, FORGETFUL) == Gathers(moved=20, most=10, once=10)


def test_a_module_of_two_rounds_stays_after_its_first_backward_pass_but_one():
    calls = order("a+", "b+", "a+", "b+", "-b", "-a", "-b", "-a")
    # given up behind the first backward pass, gathered for the second, and then there until the window ends
    assert count(calls, SIZE, SIZE, FORGETFUL) == Gathers(moved=60 + 60, most=30, once=30)
    assert count(order("a+", "a+", "-a", "-a", "-c"), SIZE, SIZE, FORGETFUL).most == 40
    followed = order("a+", "a", "c", "-a", "c", "-a")  # a pass without gradient comes last: never given up backward
    assert count(followed, SIZE, SIZE, FORGETFUL) == Gathers(moved=10 + 10 + 30 + 10 + 30, most=40, once=40)


def test_what_is_gathered_ahead_is_limited_by_live_parameters():
    calls = order("a", "b", "c")
    assert count(calls, SIZE, SIZE, Distances(reuse=0, ahead=1, persistent=0)).most == 50
    assert count(calls, SIZE, SIZE, Distances(reuse=0, ahead=1, live=10, persistent=0)).most == 30


def test_a_ring():
    assert ring(1) == 0
    assert ring(4) == 0.75


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_one_gpu_sends_nothing(zero):
    run = load_run(QUICKSTART, [f"parallel.zero_stage={zero}"])
    for stage in run.stages:
        assert traffic(run, stage, 2048, 1).total == 0


def test_gradients_are_sent_as_the_stages_of_zero_send_them():
    """Ring volumes: all-reduce 2, reduce-scatter 1; from ZeRO-2 on in each of two windows."""
    sent = {}
    for zero in range(4):
        run = load_run(QUICKSTART, [f"parallel.zero_stage={zero}", "stages.3.rollout.rounds=4"])
        sent[zero] = traffic(run, run.stages[3], 2048, 4).gradients
    assert sent[1] == sent[0]
    assert sent[2] == 2 * sent[0]
    assert sent[3] == sent[0]


def test_fewer_bytes_in_bf16_and_with_windows_alike():
    def gathered(*change: str) -> float:
        run = load_run(QUICKSTART, ["parallel.zero_stage=3", *change])
        return traffic(run, run.stages[3], 2048, 2).gathered

    assert gathered("parallel.precision=bf16") == gathered() / 2
    assert gathered("stages.3.rollout.rounds=3") > 2 * gathered("stages.3.rollout.rounds=4")
