"""Muon: whose matrices, which update, what a checkpoint keeps of it. Over ranks: distributed/test_parity_muon.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from tiny_span import PARTS

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.curriculum import plan_at
from dualmask.families import registry
from dualmask.families.task import build
from dualmask.nn.hidden import Rows, rows_of
from dualmask.training.engine import StageEngine, init_distributed, parameter_groups, run_step
from dualmask.training.muon import HiddenMatrixAdamW, Place, orthogonalised
from dualmask.training.shards import MOMENTS, MOMENTUM, WEIGHT, FlatRange, ShardFolder, write_index, write_pieces
from launcher.planner.muon import moments
from launcher.planner.parameters import learning, parameters

VOCAB = 64
SMALL = {"hidden": 16, "heads": 2, "filler_layers": 1, "inserter_layers": 1, "picker_layers": 1, "max_length": 12}


@pytest.fixture(scope="module", autouse=True)
def _world() -> None:
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))


def make_run(**parallel: Any) -> RunConfig:
    train = ["picker", "inserter"]
    losses = {"ptr_count": 1.0, "keep_recover": 1.0}
    stage = {
        "name": "picker",
        "steps": 100,
        "train": train,
        "lr": {"peak": 3e-3, "decay": "constant"},
        "losses": losses,
    }
    return RunConfig.model_validate(
        {
            "name": "x",
            "output": "x",
            "data": {"path": "d"},
            "model": SMALL,
            "batch": {"sequences": 4},
            "optimizer": {"name": "muon", "eps": 1e-4},
            "parallel": parallel,
            "stages": [stage],
        }
    )


def make_engine(run: RunConfig, seed: int = 0) -> StageEngine:
    torch.manual_seed(seed)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    return stages.make_engine(run, build(run.model, VOCAB), settings)


def steps(engine: StageEngine, run: RunConfig, numbers: range) -> list[float]:
    draw = torch.Generator().manual_seed(0)
    batch = Batch(torch.randint(6, VOCAB, (4, 12), generator=draw), torch.full((4,), 12), torch.arange(4) + 77)
    return [run_step(engine, batch, plan_at(run.stages, n), micros=1).losses["total"] for n in numbers]


def test_fused_projections_are_split_as_attention_splits_them() -> None:
    heads, head_width, width = 4, 8, 6
    weight, x = torch.randn(heads * 3 * head_width, width), torch.randn(width)
    rows = Rows(3, head_width)
    q, k, v = (weight @ x).view(heads, 3, head_width).transpose(0, 1).reshape(3, -1)
    for part, expected in zip(rows.split(weight), (q, k, v), strict=True):
        torch.testing.assert_close(part @ x, expected)
    assert torch.equal(rows.join(rows.split(weight)), weight)


@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (12, 12)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    matrices[0] += torch.randn(shape[0], 1)  # one great singular value
    values = torch.linalg.svdvals(orthogonalised(matrices, torch.float32))
    assert values.min() > 0.3
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)])
def test_one_matrix_learns_as_under_the_optimizer_of_torch(shape: tuple[int, int]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    group = {"params": [ours], "muon": True, "lr": 0.01, "weight_decay": 0.1}
    mine = HiddenMatrixAdamW([group], momentum=0.95, dtype=torch.bfloat16)
    place = Place(FlatRange("w", shape, None, 0, 0, ours.numel()), Rows())
    mine.locate({ours: [place]}, divided=False)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for number in range(4):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).abs().mean()
    assert (ours - theirs).abs().max() < 0.02 * moved  # bfloat16 rounds, one product and its sum in another order


HIDDEN = {
    "dualmask": {"attention.qkv", "attention.output", "mlp.up", "mlp.down", "filler.up", "filler.down"}
    | {"inserter.left", "inserter.right", "gate.state"},
    "spanfusion": {"attention.qkv", "attention.output", "cross.query", "cross.key_value", "cross.output"}
    | {"mlp.up", "mlp.down", "gate.second"},
    "autoregressive": {"attention.qkv", "attention.output", "mlp.up", "mlp.down"},
    "diffusion": {"attention.qkv", "attention.output", "mlp.up", "mlp.down"},
}


LAYERS = {"dualmask": {}}


@pytest.mark.parametrize("family", HIDDEN)
def test_whose_matrices(family: str) -> None:
    """Maps from hidden states to hidden states; no token table, no head, no convolution."""
    small = {"family": family, "hidden": 16, "heads": 2, "max_length": 12, **LAYERS.get(family, {"layers": 1})}
    config = PARTS if family == "spanfusion" else registry.find(family).model.model_validate(small)
    marked = {name for name, p in build(config, VOCAB).named_parameters() if rows_of(p)}
    assert {".".join(name.split(".")[-3:-1]) for name in marked} == HIDDEN[family]


def test_groups() -> None:
    run = make_run()
    groups = {g["name"]: g for g in parameter_groups(build(run.model, VOCAB), run.stages[0], 0.3, muon=True)}
    kinds = {name: (group["muon"], group["weight_decay"]) for name, group in groups.items()}
    own = {"hidden": (True, 0.3), "matrices": (False, 0.3), "vectors": (False, 0.0)}
    expected = {f"{module}.{kind}": value for module in ("picker", "inserter") for kind, value in own.items()}
    assert kinds == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_zero_stages_learn_the_same(precision: str) -> None:
    """In one process, without parts on other ranks; bfloat16 keeps float32 copies from stage 1 on."""
    run = make_run(precision=precision, zero_stage=1)
    engine = make_engine(run)
    expected = steps(engine, run, range(4))
    engine.close()
    for zero_stage in (0, 2, 3):
        run = make_run(precision=precision, zero_stage=zero_stage)
        engine = make_engine(run)
        assert steps(engine, run, range(4)) == pytest.approx(expected, abs=1e-5 if precision == "fp32" else 2e-2)
        engine.close()


def test_it_learns_with_the_states_that_the_planner_counts() -> None:
    run = make_run(zero_stage=1)
    engine = make_engine(run)
    losses = steps(engine, run, range(100))
    kept = [piece.tensors for piece in engine.partition.pieces()]
    engine.close()
    states = sum(value.numel() for tensors in kept for kind, value in tensors.items() if kind != WEIGHT)
    assert states == moments(run, learning(parameters(run.model, VOCAB), run.stages[0]))
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize(("zero_stage", "precision"), [(0, "fp32"), (0, "bf16"), (1, "fp32"), (2, "bf16"), (3, "bf16")])
def test_a_checkpoint_holds_one_momentum(zero_stage: int, precision: str, tmp_path: Path) -> None:
    """In the stead of two moments; training goes on from it bit for bit."""
    run = make_run(zero_stage=zero_stage, precision=precision)
    engine = make_engine(run)
    steps(engine, run, range(2))
    entries = write_pieces(tmp_path, 0, list(engine.partition.pieces()))
    write_index(tmp_path, entries, tensor_size=1, updates=engine.partition.updates)
    expected = steps(engine, run, range(2, 5))
    engine.close()
    shards = ShardFolder(tmp_path)
    assert shards.kinds("model.inserter.left.weight") == [MOMENTUM, "weight"]
    assert shards.kinds("model.inserter.count.weight") == [*MOMENTS, "weight"]
    assert shards.whole("model.inserter.left.weight", MOMENTUM).abs().max() > 0
    fresh = make_engine(run, seed=1)
    fresh.partition.fill(shards)
    assert steps(fresh, run, range(2, 5)) == expected
    fresh.close()
