"""A stage's engine ends without a trace, and the next one begins with each rank's own part of the weights."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from tiny_rounds import VOCAB, WIDTH, make_batch

from dualmask.config.schema import RunConfig
from dualmask.curriculum import first_step, plan_at
from dualmask.families.edit.model import DualMask
from dualmask.nn import initial
from dualmask.training.engine import StageEngine, init_distributed, run_step
from dualmask.training.shards import write_index, write_pieces
from dualmask.training.trainer import Stages

ALL = ["filler", "inserter", "picker", "gate"]
STAGES = [
    {"name": "filler", "steps": 2, "train": ["filler"], "lr": {"peak": 1e-2}},
    {"name": "picker", "steps": 2, "train": ["picker"], "lr": {"peak": 1e-2}, "start_from": {"picker": "filler"}},
    {"name": "joint", "steps": 2, "train": ALL, "lr": {"peak": 1e-3}, "rollout": {"rounds": 2, "window": 2}},
]


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_run(zero: int, precision: str = "fp32") -> RunConfig:
    small = {
        "hidden": 16,
        "heads": 2,
        "filler_layers": 1,
        "inserter_layers": 1,
        "picker_layers": 1,
        "max_length": WIDTH,
    }
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": small | {"max_length": WIDTH},
            "batch": {"sequences": 4},
            "parallel": {"zero_stage": zero, "precision": precision},
            "stages": STAGES,
        }
    )


def whole(engine: StageEngine) -> dict[str, torch.Tensor]:
    return dict(engine.whole_weights().stream)


def trained(run: RunConfig, index: int, engine: StageEngine) -> dict[str, torch.Tensor]:
    """Its weights behind a step."""
    assert run_step(engine, make_batch(12), plan_at(run.stages, first_step(run.stages, index)), micros=1).taken
    return whole(engine)


def save(engine: StageEngine, folder: Path) -> Path:
    folder.mkdir()
    entries = write_pieces(folder, 0, list(engine.partition.pieces()))
    write_index(folder, entries, tensor_size=1, updates=engine.partition.updates)
    return folder


def live_bytes() -> int:
    """Of all tensors."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and not thing.is_meta:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_nothing_of_an_engine_outlives_it(zero: int) -> None:
    run = make_run(zero)
    stages = Stages(run, VOCAB)
    trained(run, 0, warm := stages.build(0))  # caches of torch and DeepSpeed that are filled once
    warm.close()
    del warm
    before = live_bytes()
    engine = stages.build(0)
    trained(run, 0, engine)
    watched = {
        "engine": weakref.ref(engine.deepspeed_engine),
        "model": weakref.ref(engine.model),
        "optimizer": weakref.ref(engine.deepspeed_engine.optimizer),
        "a parameter": weakref.ref(next(engine.model.parameters())),
    }
    engine.close()
    del engine
    gc.collect()
    assert [name for name, reference in watched.items() if reference() is not None] == []
    assert live_bytes() == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_run_begins_with_the_drawn_weights(zero: int, precision: str) -> None:
    run = make_run(zero, precision)
    expected = DualMask(run.model, VOCAB)
    initial.fill(expected, run.seed)
    engine = Stages(run, VOCAB).build(0)
    seen = whole(engine)
    engine.close()
    learns = {name for name, _ in expected.named_parameters() if run.stages[0].module_of(name)}
    for name, value in expected.named_parameters():
        kept_whole = precision == "fp32" or name in learns  # what does not learn has no copy in float32
        assert torch.equal(seen[name], value if kept_whole else value.bfloat16().float()), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_stage_begins_where_the_one_before_ended(zero: int, precision: str, tmp_path: Path) -> None:
    run = make_run(zero, precision)
    stages = Stages(run, VOCAB)
    engine = stages.build(0)
    for index in (1, 2):
        ended = trained(run, index - 1, engine)
        checkpoint = save(engine, tmp_path / str(index))
        engine.close()
        engine = stages.build(index, checkpoint)
        begun = whole(engine)
        for name, value in begun.items():
            source = name.replace("picker.", "filler.") if index == 1 else name
            copied = name.startswith(("picker.trunk.", "picker.doubt.")) and index == 1
            expected = ended[source] if copied else ended[name]
            learns = run.stages[index].module_of(name) is not None
            if precision == "bf16" and not learns:
                expected = expected.bfloat16().float()
            assert torch.equal(value, expected), name
    engine.close()


def test_a_look_at_the_model_gives_back_what_it_gathered() -> None:
    run = make_run(3)
    engine = Stages(run, VOCAB, deepspeed={"zero_optimization": {"stage3_param_persistence_threshold": 0}}).build(2)
    plan = plan_at(run.stages, first_step(run.stages, 2))
    trained(run, 2, engine)
    before = live_bytes()
    engine.call(engine.task.measure().sums, make_batch(12), plan)
    assert live_bytes() == before
    gathered = [name for name, parameter in engine.model.named_parameters() if parameter.numel()]
    assert gathered == []
    trained(run, 2, engine)
    engine.close()
