"""How often the host waits for the device in a step: what it must read from a tensor before it can go on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from stages import make_engine
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.runs import Size, random_batch
from benchmarks.step_arms import Case
from dualmask.config.deepspeed import deepspeed_config
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.training.engine import init_distributed, run_step

SIZE = Size(hidden=32, layers=1, heads=2, length=16, sequences=4, vocabulary=128)
WAITING = ("_local_scalar_dense", "nonzero", "masked_select")


class Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := function.overloadpacket.__name__) in WAITING:
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def device_alone_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trunks do what they do where reading a tensor is a wait."""
    monkeypatch.setattr("dualmask.nn.layout.readable", lambda x: False)


def waits(case: Case, zero: int, micros: int) -> Counter[str]:
    """Of the third step: ZeRO-3 learns the order of the modules in those before."""
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    run = case.run(zero)
    batch = run.batch.model_copy(update={"micro": SIZE.sequences // micros})
    run = run.model_copy(update={"batch": batch})
    model = build(run.model, SIZE.vocabulary)
    engine = make_engine(run, model, deepspeed_config(run, run.stages[0], data_size=1, cuda=False))
    for step in range(2):
        run_step(engine, random_batch(SIZE, step), plan_at(run.stages, step), micros=micros)
    with Waits() as seen:
        run_step(engine, random_batch(SIZE, 2), plan_at(run.stages, 2), micros=micros)
    engine.close()
    return seen.seen


# `nonzero` finds the slots of a forward, whose number the data decide. A round of stage joint has four: of the filler,
# of the probes, and of the texts on which the Gate's other decision is tried, and of their filler.
@pytest.mark.usefixtures("device_alone_knows")
@pytest.mark.parametrize("zero", [1, 3])
@pytest.mark.parametrize(("stage", "rounds", "slots"), [("lm", 1, 1), ("filler", 1, 1), ("joint", 2, 8)])
def test_a_micro_batch_waits_for_its_slots_only(stage: str, rounds: int, slots: int, zero: int) -> None:
    case = Case(stage, SIZE, rounds, window=rounds)
    one, two = (waits(case, zero, micros) for micros in (1, 2))
    # once a step: norm of the gradient, whether it is finite, the losses; under ZeRO-1 each optimizer group's norm
    assert one["_local_scalar_dense"] <= 3 + 2 * len(case.run().stages[0].train)
    assert two["_local_scalar_dense"] == one["_local_scalar_dense"]
    assert one["nonzero"] <= slots
    assert two["nonzero"] == 2 * one["nonzero"]
    assert one["masked_select"] == two["masked_select"] == 0
