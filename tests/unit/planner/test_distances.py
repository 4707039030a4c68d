"""The memory that is left decides how long ZeRO-3 keeps weights, and what fits is not exceeded."""

from pathlib import Path

import pytest

from dualmask.config.hardware import load_hardware
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from launcher.planner.distances import REUSES, settled, with_reuse
from launcher.planner.memory import memory
from launcher.planner.recommend import recommend
from launcher.planner.time import Cluster, Site
from launcher.planner.traffic import traffic

CONFIGS = Path(__file__).parents[3] / "configs"
GIB = 2**30
VOCABULARY = 65536


def times_ideal(run: RunConfig, data_size: int) -> list[float]:
    """Of each stage: bytes gathered, over each weight gathered once a window."""
    each = [traffic(run, stage, VOCABULARY, data_size) for stage in run.stages]
    return [sent.gathered / sent.once for sent in each]


@pytest.mark.parametrize(("size", "gpus"), [("7b", 64), ("7b", 512), ("70b", 4096)])
def test_large_plans_gather_each_weight_about_once_a_window(size, gpus):
    hardware = load_hardware("h100-80g", CONFIGS / "hardware")
    site = Site(hardware, Cluster(gpus // 8, 8), VOCABULARY)
    choice = recommend(load_run(CONFIGS / f"dualmask_{size}.yaml"), site).choice
    assert choice.fits
    assert max(times_ideal(choice.run, choice.data)) <= 1.3
    assert max(times_ideal(with_reuse(choice.run, None), choice.data)) > 2.5  # DeepSpeed's default


def test_two_rounds_in_a_window_gather_once_only_if_all_of_it_stays():
    """By the rules of DeepSpeed's coordinator a window is a cycle through the model: a distance one step short of its
    length finds everything gone."""
    run = load_run(CONFIGS / "dualmask_7b.yaml", ["batch.micro=1"])
    stage = run.stages[-1]
    sent = [traffic(with_reuse(run, reuse), stage, VOCABULARY, 32) for reuse in REUSES]
    assert [one.gathered for one in sent] == sorted((one.gathered for one in sent), reverse=True)
    whole = next(one for one in sent if one.gathered <= 1.3 * one.once)
    assert whole.held >= 0.99 * whole.once / (2 * 64)  # two windows of each of 64 micro-batches
    assert all(one.held == whole.held for one in sent if one.gathered <= 1.3 * one.once)


@pytest.mark.parametrize("usable", [30 * GIB, 40 * GIB, 60 * GIB])
def test_what_is_settled_fits_and_the_next_does_not(usable):
    run = load_run(CONFIGS / "dualmask_7b.yaml", ["batch.micro=1"])
    chosen = settled(run, VOCABULARY, 32, usable)
    reuse = chosen.parallel.max_reuse_distance

    def needed(reuse):
        return max(memory(with_reuse(run, reuse), stage, VOCABULARY, 32).total for stage in run.stages)

    assert needed(reuse) <= usable
    assert reuse == REUSES[-1] or needed(REUSES[REUSES.index(reuse) + 1]) > usable


@pytest.mark.parametrize("change", ["parallel.max_reuse_distance=5", "parallel.zero_stage=2"])
def test_left_alone_where_the_run_decides_or_nothing_is_gathered(change):
    run = load_run(CONFIGS / "dualmask_7b.yaml", ["batch.micro=1", change])
    assert settled(run, VOCABULARY, 32, 60 * GIB) is run


def test_nothing_fits():
    run = load_run(CONFIGS / "dualmask_7b.yaml", ["batch.micro=1"])
    assert settled(run, VOCABULARY, 32, GIB).parallel.max_reuse_distance == REUSES[0]
