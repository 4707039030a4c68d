"""Time is what operations, bytes and rates make it; the recommendation fits, and nothing that fits is faster."""

from pathlib import Path

import pytest

from dualmask.config.hardware import load_hardware
from dualmask.config.load import ConfigError, load_run
from launcher.planner.flops import step_cost
from launcher.planner.parameters import by_module, parameters
from launcher.planner.passes import Shape
from launcher.planner.recommend import choices, largest, recommend
from launcher.planner.time import Cluster, Site, step_time
from launcher.planner.traffic import traffic

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
H100 = load_hardware("h100-80g", CONFIGS / "hardware")


def site(nodes: int, gpus_per_node: int, vocab_size: int = 32768, **hardware: float) -> Site:
    return Site(H100.model_copy(update=hardware), Cluster(nodes, gpus_per_node), vocab_size)


@pytest.mark.parametrize(("size", "named"), [(125e6, "125m"), (1.3e9, "1.3b"), (7e9, "7b"), (70e9, "70b")])
def test_configurations_are_as_large_as_they_are_called(size, named):
    run = load_run(CONFIGS / f"dualmask_{named}.yaml")
    assert sum(by_module(parameters(run.model, run.model.vocab_size)).values()) == pytest.approx(size, rel=0.07)
    tokens = sum(stage.steps for stage in run.stages) * run.batch.sequences * run.model.max_length
    assert tokens == pytest.approx(20 * size, rel=0.02)  # Hoffmann et al. 2022


def test_time_of_a_step():
    run = load_run(CONFIGS / "dualmask_125m.yaml")
    stage = run.stages[0]
    time = step_time(run, stage, site(2, 8))
    cost = step_cost(Shape(run.model, 32768, run.batch.sequences, False), stage)
    assert time.compute == pytest.approx(cost.total / 16 / (989e12 * 0.4))
    sent = traffic(run, stage, 32768, 16)
    bytes_on_the_network = (sent.parameters + sent.gradients) / 8  # eight rings leave a node, each by its own adapter
    hops = 15 * sent.data_calls * 3e-6
    slower = max(bytes_on_the_network / 50e9, 8 * bytes_on_the_network / 450e9)
    assert time.data == pytest.approx(slower / 0.75 + hops)
    assert time.tensor == 0
    assert time.host > time.compute + time.data  # so small a model on so many GPUs
    assert time.least == time.most == pytest.approx(time.host + time.optimizer)


def test_muon_takes_products_which_data_ranks_share_out():
    adamw, muon = (load_run(CONFIGS / "dualmask_1.3b.yaml", [f"optimizer.name={name}"]) for name in ("adamw", "muon"))
    plain, one, eight = (
        step_time(run, run.stages[0], site(1, gpus)).optimizer for run, gpus in ((adamw, 1), (muon, 1), (muon, 8))
    )
    assert one > 2 * plain
    assert one / 8 < eight < one / 2  # they also send the matrices to and fro


def test_an_offloaded_update_goes_through_the_cable_and_the_hosts_memory():
    run = load_run(CONFIGS / "dualmask_7b.yaml", ["parallel.offload=optimizer"])
    here = site(1, 8, 65536)
    time = step_time(run, run.stages[-1], here)
    share = sum(p.size(2) for p in parameters(run.model, 65536)) / 4
    assert time.optimizer == pytest.approx((share * 4 / 25e9 + share * 34 * 8 / 200e9) / 0.75)
    on_device = step_time(run.model_copy(update={"parallel": load_run(CONFIGS / "dualmask_7b.yaml").parallel}),
                          run.stages[-1], here)  # fmt: skip
    assert time.optimizer > 10 * on_device.optimizer


def test_tensor_parallel_ranks_wait_for_each_other():
    run = load_run(CONFIGS / "dualmask_125m.yaml", ["parallel.tensor=2"])
    time = step_time(run, run.stages[0], site(1, 8))
    assert time.tensor > 0
    assert time.least >= time.compute + time.tensor


def test_the_recommendation_is_the_fastest_that_fits():
    run, here = load_run(CONFIGS / "dualmask_125m.yaml"), site(1, 4)
    advice = recommend(run, here)
    found = list(choices(run, here))
    assert {choice.tensor for choice in found} == {1, 2, 4}
    assert advice.choice.fits
    assert all(advice.choice.seconds[1] <= choice.seconds[1] for choice in found if choice.fits)
    again = load_run(CONFIGS / "dualmask_125m.yaml", advice.overrides)  # what it says can be given to --set
    assert again.parallel.tensor == advice.choice.tensor
    assert again.batch.micro == advice.choice.micro


def test_the_largest_micro_batch_fits_and_the_next_does_not():
    run = load_run(CONFIGS / "dualmask_125m.yaml")
    best = largest(run, site(1, 1, memory_gib=30))
    more = run.model_copy(update={"batch": run.batch.model_copy(update={"micro": 2 * best.micro})})
    assert best.fits
    assert not type(best)(more, best.site).fits


def test_windows_are_cut_only_where_nothing_fits_otherwise():
    run = load_run(CONFIGS / "dualmask_125m.yaml", ["stages.3.rollout.window=4"])
    small = site(1, 1)
    assert recommend(run, small).choice.window == 4
    short, long = (_least(run, width, small) for width in (1, 4))
    assert short < long
    tight = site(1, 1, memory_gib=(short + long) / 2 / 2**30 / H100.memory_share)
    advice = recommend(run, tight)
    assert advice.choice.window == 1
    assert any("window=1" in reason for reason in advice.reasons)


def _windows(run, width):
    stages = list(run.stages)
    stages[3] = stages[3].model_copy(update={"rollout": stages[3].rollout.model_copy(update={"window": width})})
    return run.model_copy(update={"stages": tuple(stages)})


def _least(run, width: int, where: Site) -> float:
    """Bytes of the choice that needs least."""
    nothing = Site(where.hardware.model_copy(update={"memory_gib": 0.001}), where.cluster, where.vocab_size)
    return min(choice.bytes for choice in choices(_windows(run, width), nothing))


def test_one_line_names_what_would_fit():
    run = load_run(CONFIGS / "dualmask_7b.yaml")
    with pytest.raises(ConfigError) as error:
        recommend(run, site(1, 1, 65536))
    line = str(error.value)
    assert "\n" not in line
    gpus = int(line.rsplit("it would on ", 1)[1].split()[0])
    assert recommend(run, site(gpus // 8, 8, 65536)).choice.fits


@pytest.mark.parametrize("name", ["spanfusion_small", "diffusion", "quickstart"])
def test_every_family(name):
    assert recommend(load_run(CONFIGS / f"{name}.yaml"), site(1, 4, 2048)).choice.fits


def test_nothing_to_plan():
    with pytest.raises(ConfigError, match="no stage that is planned"):
        recommend(load_run(CONFIGS / "reward.yaml"), site(1, 1, 2048))


def test_a_batch_that_is_too_small():
    with pytest.raises(ConfigError, match=r"batch\.sequences=512 cannot be shared by 4096 GPUs"):
        recommend(load_run(CONFIGS / "dualmask_125m.yaml"), site(512, 8))
