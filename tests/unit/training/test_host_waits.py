"""How often the host waits for the device in a step, and that no way to wait escapes the count."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from stages import make_engine

from benchmarks.engines import passes
from benchmarks.host_waits import HostWork
from benchmarks.runs import Size, random_batch
from benchmarks.step_arms import Case, make
from dualmask.config.deepspeed import deepspeed_config
from dualmask.core import host
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.training.engine import StageEngine, init_distributed, run_step

SIZE = Size(hidden=32, layers=1, heads=2, length=16, sequences=4, vocabulary=128)


@pytest.fixture(autouse=True)
def _device_alone_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code does what it does where reading a tensor is a wait."""
    monkeypatch.setattr(host, "readable", lambda x: False)


NUMBERS, FLAGS = torch.arange(6), torch.arange(6) % 2 == 0
WAITS: dict[str, Callable[[], object]] = {
    "item": lambda: NUMBERS.sum().item(),
    "int": lambda: int(NUMBERS[0]),
    "float": lambda: float(NUMBERS[0]),
    "bool": lambda: bool(FLAGS.any()),
    "if": lambda: 1 if FLAGS.all() else 0,
    "index of a list": lambda: [0, 1][NUMBERS[1]],
    "tolist": lambda: NUMBERS.tolist(),
    "numpy": lambda: NUMBERS.numpy(),
    "cpu": lambda: NUMBERS.cpu(),
    "to cpu": lambda: NUMBERS.to("cpu"),
    "nonzero": lambda: FLAGS.nonzero(),
    "where": lambda: torch.where(FLAGS),
    "bool index": lambda: NUMBERS[FLAGS],
    "bool index of an axis": lambda: NUMBERS.view(2, 3)[:, FLAGS[:3]],
    "bool index written": lambda: NUMBERS.clone().__setitem__(FLAGS, NUMBERS[:3]),
    "masked_select": lambda: NUMBERS.masked_select(FLAGS),
    "unique": lambda: NUMBERS.unique(),
    "unique_consecutive": lambda: NUMBERS.unique_consecutive(),
    "bincount": lambda: NUMBERS.bincount(),
    "repeat_interleave": lambda: NUMBERS.repeat_interleave(NUMBERS),
    "equal": lambda: torch.equal(NUMBERS, NUMBERS),
    "tensor": lambda: torch.tensor([1.0, 2.0], device=NUMBERS.device),
    "from_numpy": lambda: torch.from_numpy(FLAGS_ON_HOST),
    "a copy of the door": lambda: host.Copy(NUMBERS).wait(),
}
FLAGS_ON_HOST = FLAGS.numpy().copy()


@pytest.mark.parametrize("way", WAITS)
def test_every_way_to_wait_is_seen(way: str) -> None:
    with HostWork() as work:
        WAITS[way]()
    assert work.waits.total() >= 1


def test_the_backward_pass_is_seen() -> None:
    value = torch.ones(6, requires_grad=True)
    chosen = value[FLAGS].sum()
    with HostWork() as work:
        chosen.backward()
    assert work.waits.total() == 1  # the gradient is written by the same mask


def test_what_needs_no_wait_is_not_counted() -> None:
    value = torch.ones(6, requires_grad=True)
    with HostWork() as work:
        (value * 2).masked_fill(FLAGS, 0.0)[NUMBERS].sum().backward()
        NUMBERS.clone()[FLAGS] = 0  # one number by a mask is a fill
        NUMBERS.to(torch.float32)
        FLAGS.nonzero_static(size=3)
        NUMBERS.repeat_interleave(2)
        NUMBERS.repeat_interleave(NUMBERS, output_size=15)
        host.to_device(FLAGS_ON_HOST, NUMBERS.device)
    assert not work.waits
    assert work.operations > 5


def test_a_thread_waits_for_the_host_and_the_host_for_its_result_alone() -> None:
    with HostWork() as work, ThreadPoolExecutor(1) as pool:
        made = host.Work(pool, lambda numbers: numbers.tolist(), host.Copy(NUMBERS))
        assert made.wait() == NUMBERS.tolist()
    assert work.waits == {"planned wait": 1, "tolist": 1}  # the latter is this test's own


def test_an_error_of_the_thread_is_raised_where_its_result_is_wanted() -> None:
    def fail(numbers: object) -> None:
        raise ValueError("no alignment")

    with ThreadPoolExecutor(1) as pool:
        made = host.Work(pool, fail, host.Copy(NUMBERS))
        with pytest.raises(ValueError, match="no alignment"):
            made.wait()


def engine_of(case: Case, zero: int, micros: int = 1) -> tuple[StageEngine, list]:
    """An engine, and the stages of its run."""
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    run = case.run(zero)
    batch = run.batch.model_copy(update={"micro": SIZE.sequences // micros})
    run = run.model_copy(update={"batch": batch})
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=torch.cuda.is_available())
    return make_engine(run, build(run.model, SIZE.vocabulary), settings), list(run.stages)


def forward_and_backward(case: Case, zero: int) -> HostWork:
    """Of the third step's micro-batch: ZeRO-3 learns the order of the modules in those before."""
    engine, stages = engine_of(case, zero)
    for step in range(2):
        run_step(engine, random_batch(SIZE, step), plan_at(stages, step), micros=1)
    batch = engine.task.prepare(random_batch(SIZE, 2), plan_at(stages, 2)).to(engine.device)
    with HostWork() as work:
        engine.forward_backward(batch, plan_at(stages, 2), last=True)
    engine.close()
    return work


@pytest.mark.parametrize("zero", [1, 3])
@pytest.mark.parametrize(
    ("stage", "rounds", "window", "waits"),
    [("filler", 1, 1, 0), ("inserter", 1, 1, 0), ("joint", 1, 1, 1), ("joint", 3, 3, 5), ("joint", 4, 2, 7)],
)
def test_a_round_waits_once_for_its_sizes_and_a_later_one_for_its_labels(
    stage: str, rounds: int, window: int, waits: int, zero: int
) -> None:
    work = forward_and_backward(Case(stage, SIZE, rounds, window=window), zero)
    assert work.waits.total() == work.waits["planned wait"] == waits


def test_slots_that_are_kept_tokens_too_cost_no_further_wait() -> None:
    class Kept(Case):
        def stage_tree(self):
            tree = super().stage_tree()
            return tree | {"losses": tree.get("losses", {}) | {"kept_weight": 0.1}}

    assert forward_and_backward(Kept("joint", SIZE, 2, window=2), 1).waits == {"planned wait": 3}
    assert not forward_and_backward(Kept("filler", SIZE), 1).waits


def test_gradient_accumulation_adds_no_wait_to_the_step() -> None:
    """Beside those of the rounds: norm of the gradient, whether it is finite, the losses; each group's norm."""
    seen = []
    for micros in (1, 2):
        engine, stages = engine_of(Case("filler", SIZE), zero=1, micros=micros)
        run_step(engine, random_batch(SIZE, 0), plan_at(stages, 0), micros=micros)
        plan = plan_at(stages, 1)
        batch = engine.task.prepare(random_batch(SIZE, 1), plan)
        with HostWork() as work:
            run_step(engine, batch, plan, micros=micros)
        engine.close()
        seen.append(work.waits["_local_scalar_dense"])
        assert work.waits["planned wait"] == 1
    assert seen[0] == seen[1] <= 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, whose own account of waits this reads")
def test_cuda_agrees() -> None:
    """Its debug mode raises at every wait that torch makes; those of the doors are events, which it lets pass."""
    case = Case("joint", SIZE, 3, window=3)
    task, _ = make(case)
    plan = plan_at(case.run().stages, 0)
    for step in range(3):
        batch = task.prepare(random_batch(SIZE, 0), plan).to("cuda")
        torch.cuda.set_sync_debug_mode("error" if step == 2 else "default")
        try:
            passes(task, batch, plan)
        finally:
            torch.cuda.set_sync_debug_mode("default")
