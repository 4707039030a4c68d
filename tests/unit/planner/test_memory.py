"""How the bytes of a rank follow ZeRO, precision and degrees; that they are right shows test_plan_memory.py."""

from pathlib import Path

import pytest

from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from launcher.planner.host import host_bytes
from launcher.planner.memory import Memory, at_initialize, memory, offloaded, peaks
from launcher.planner.parameters import learning, parameters

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
SPAN = Path(__file__).parents[3] / "configs" / "spanfusion_small.yaml"


def step(run: RunConfig, data_size: int, vocab_size: int = 2048) -> Memory:
    """The optimizer's, in which all states are there."""
    return peaks(run, run.stages[-1], vocab_size, data_size)[-1]


@pytest.mark.parametrize(
    ("zero_stage", "shared"),
    [(0, set()), (1, {"gradients", "master", "adam"}), (2, {"gradients", "master", "adam"}),
     (3, {"gradients", "master", "adam", "weights"})],
)  # fmt: skip
def test_what_the_data_ranks_share(zero_stage: int, shared: set[str]):
    run = load_run(QUICKSTART, [f"parallel.zero_stage={zero_stage}"])
    one, four = step(run, 1), step(run, 4)
    for kind in ("weights", "gradients", "master", "adam"):
        assert getattr(one, kind) == (4 if kind in shared else 1) * getattr(four, kind), kind


def test_tensor_ranks_share_what_is_split():
    one = step(load_run(QUICKSTART), 1)
    two = step(load_run(QUICKSTART, ["parallel.tensor=2"]), 1)
    assert 0.5 < two.adam / one.adam < 0.6  # norms and small layers are whole on every rank


def test_muon_keeps_one_moment_of_its_matrices():
    adamw, muon = (load_run(QUICKSTART, [f"optimizer.name={name}"]) for name in ("adamw", "muon"))
    hidden = sum(p.size() for p in learning(parameters(muon.model, 2048), muon.stages[-1]) if p.hidden)
    one, two = (step(run, 4) for run in (adamw, muon))
    assert one.adam - two.adam == hidden * 4 / 4  # bytes, ranks
    assert (two.master, two.gradients, two.weights) == (one.master, one.gradients, one.weights)
    assert 0.5 < two.adam / one.adam < 0.6


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_an_average_is_a_float32_copy_of_what_learns(zero_stage: int):
    set_up = [f"parallel.zero_stage={zero_stage}", "optimizer.name=adamw"]
    without, with_one = (step(load_run(QUICKSTART, [*set_up, *more]), 2) for more in ([], ["optimizer.ema_decay=0.99"]))
    assert with_one.master - without.master == with_one.adam / 2
    assert with_one.total - without.total == with_one.master - without.master


def test_rounded_weights_keep_a_whole_copy():
    single, rounded = (step(load_run(QUICKSTART, [f"parallel.precision={p}"]), 1) for p in ("fp32", "bf16"))
    assert rounded.weights == single.weights / 2
    assert rounded.master == single.master


def test_a_teacher_of_its_own_is_a_second_model():
    """And under bfloat16 its average is kept as float32."""
    same, own = ([f"stages.1.span.teacher={teacher}", "parallel.precision=bf16"] for teacher in ("same", "ema"))
    one, two = (step(load_run(SPAN, change), 1) for change in (same, own))
    assert two.weights == 4 * one.weights
    assert two.adam == one.adam


def test_micro_batches_bound_what_is_kept():
    whole, parts = (
        memory(run, run.stages[-1], 2048, 1) for run in (load_run(QUICKSTART), load_run(QUICKSTART, ["batch.micro=8"]))
    )
    assert parts.activations == pytest.approx(whole.activations / 4)


def test_ranks_must_divide_the_batch():
    run = load_run(QUICKSTART)
    with pytest.raises(ValueError, match=r"batch\.sequences=32"):
        memory(run, run.stages[0], 2048, 5)


@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations(path: Path):
    """Stage `reward` too, whose operations are not planned."""
    run = load_run(path)
    for stage in run.stages:
        held = memory(run, stage, 2048, 1)
        assert all(value >= 0 for value in vars(held).values())
        assert held.total > held.weights + held.adam > 0


@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_offloaded_optimizer_is_the_hosts(zero, name):
    settings = [f"parallel.zero_stage={zero}", "parallel.precision=bf16", f"optimizer.name={name}"]
    own, away = (load_run(QUICKSTART, [*settings, f"parallel.offload={where}"]) for where in ("none", "optimizer"))
    kept, rest = step(own, 4), step(away, 4)
    moved = kept.gradients + kept.master + kept.adam
    assert (rest.gradients, rest.master, rest.adam) == (0, 0, 0)
    assert rest.weights == kept.weights
    assert rest.total < kept.total - moved
    on_host = offloaded(away, away.stages[-1], 2048, 4)
    assert on_host == pytest.approx(moved + kept.master)  # gradients once more, as float32
    assert offloaded(own, own.stages[-1], 2048, 4) == 0
    assert host_bytes(away, 2048, 4)["at start"] >= offloaded(away, away.stages[0], 2048, 4) > 0
    assert at_initialize(away, away.stages[-1], 2048, 4) < at_initialize(own, own.stages[-1], 2048, 4)
