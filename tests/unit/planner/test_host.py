"""What a rank needs of the host is its share and one parameter, and what cannot start is named with a remedy."""

from pathlib import Path

import pytest

from dualmask.config.hardware import load_hardware
from dualmask.config.load import ConfigError, load_run
from launcher import machine
from launcher.planner.host import cannot_start, host_bytes
from launcher.planner.memory import at_initialize, memory
from launcher.planner.parameters import by_module, parameters
from launcher.preflight import Preflight

CONFIGS = Path(__file__).parents[3] / "configs"
H100 = load_hardware("h100-80g", CONFIGS / "hardware")
VOCABULARY = 65536
START, CHANGE, CHECKPOINT, EXPORT = "at start", "at a stage change", "while a checkpoint is written", "at export"


def large(*change: str):
    return load_run(CONFIGS / "dualmask_7b.yaml", ["parallel.tensor=1", "batch.micro=1", *change])


SIZE = sum(by_module(parameters(large().model, VOCABULARY)).values())


def test_phases_follow_the_share():
    """On GPUs the host has nothing but copies: 2 bytes a weight as DeepSpeed moves it, 12 with AdamW's moments."""
    one, many = host_bytes(large(), VOCABULARY, 2), host_bytes(large(), VOCABULARY, 64)
    largest = VOCABULARY * large().model.hidden
    assert one[CHANGE] == pytest.approx(2 * SIZE / 2 + 8 * largest / 2)
    assert one[CHECKPOINT] == pytest.approx(12 * SIZE / 2)
    for phase in (START, CHANGE, CHECKPOINT):
        assert many[phase] == pytest.approx(one[phase] / 32)
    assert many[EXPORT] == one[EXPORT] == 4 * largest
    assert host_bytes(large("parallel.tensor=2"), VOCABULARY, 32)[EXPORT] == 8 * largest
    averaged = host_bytes(large("optimizer.ema_decay=0.9"), VOCABULARY, 2)
    assert averaged[CHECKPOINT] == pytest.approx(16 * SIZE / 2)


def test_without_zero_ranks_share_the_writing_alone():
    held = host_bytes(large("parallel.zero_stage=0"), VOCABULARY, 64)
    assert held[CHANGE] == 8 * VOCABULARY * large().model.hidden
    assert held[CHECKPOINT] == pytest.approx(12 * SIZE / 64)


def test_cpu_ranks_make_the_engine_in_the_same_memory():
    run = large("device=cpu", "parallel.precision=fp32")
    held = host_bytes(run, VOCABULARY, 2)
    assert held[START] > at_initialize(run, run.stages[0], VOCABULARY, 2)
    assert held[CHANGE] > 12 * SIZE / 2  # weight, gradient, master copy
    assert held[EXPORT] > 20 * SIZE / 2  # and two moments


def test_making_an_engine_leaves_the_moments_to_the_first_step():
    """bf16 on 8 ranks; without ZeRO DeepSpeed takes that step at once."""
    for zero, bytes_each in ((0, 2 + 2 + 4 + 8 + 4), (1, 2 + (4 + 4) / 8), (3, (2 + 4 + 2) / 8)):
        run = large(f"parallel.zero_stage={zero}")
        made = at_initialize(run, run.stages[-1], VOCABULARY, 8)
        assert made == pytest.approx(bytes_each * SIZE, rel=0.15)
        assert made <= memory(run, run.stages[-1], VOCABULARY, 8).total


@pytest.mark.parametrize(
    ("change", "hardware", "named"),
    [
        (["parallel.zero_stage=1"], {"memory_gib": 16}, "of a GPU; set parallel.zero_stage=3 (it is 1)"),
        (
            ["parallel.zero_stage=0"],
            {"memory_gib": 200, "host_memory_gib": 80},
            "is written, 8 ranks of a node need 102 GiB",
        ),
        ([], {"host_memory_gib": 20}, "at start, 8 ranks of a node need 38 GiB of its 20 GiB of memory"),
    ],
)
def test_what_cannot_start(change, hardware, named):
    line = cannot_start(large(*change), VOCABULARY, 8, 8, H100.model_copy(update=hardware))
    assert named in line
    assert "\n" not in line
    assert not cannot_start(large(*change), VOCABULARY, 8, 8, H100.model_copy(update={"memory_gib": 200}))


def test_this_machine_refuses_what_it_has_no_room_for(monkeypatch):
    run = load_run(CONFIGS / "quickstart.yaml", ["device=cpu"])
    ready = Preflight(run, 2048, Path("unused"), "", {}, None)
    assert machine.prepared(ready, world=2, local=2) == ready
    monkeypatch.setattr(machine, "host_memory", lambda: 10**7)
    with pytest.raises(ConfigError, match=r"cannot start: at start, 2 processes here need .* has 0\.0 GiB"):
        machine.prepared(ready, world=2, local=2)


def test_memory_of_this_machine(tmp_path, monkeypatch):
    whole = machine.host_memory()
    assert whole > 2**28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CONTROL_GROUP", limit)
    for text, expected in (("max\n", None), ("1048576\n", 2**20)):
        limit.write_text(text)
        assert machine.host_memory() == expected or (expected is None and machine.host_memory() >= whole)
