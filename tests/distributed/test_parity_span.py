"""SpanFusionLM on four ranks, tensor-parallel and divided by ZeRO, gives what one plain process gives: both stages in a
row, with the teacher that follows the model, and the one that is the model."""

from __future__ import annotations

from pathlib import Path

import plain
import plain_span
import pytest
import tiny
from test_parity import CHECKPOINTING, SPLIT_ALL, TENSOR, assert_same, run_variants

from dualmask.config.load import load_run

STEPS = (2, 5)  # of the two stages
MODEL = {
    "family": "spanfusion",
    "hidden": 32,
    "heads": 4,
    "max_length": tiny.LENGTH,
    "init_std": 0.1,
    "span": {"decoder_layers": 2, "encoder_layers": 1, "g_max": 3, "gate_hidden": 8},
}
LOSSES = {"latent": 2.0, "pred": 0.3, "gate_cost": 0.5, "gate_cost_steps": 3}
SPAN = {"lengths": [4, 7], "losses": LOSSES, "teacher_forcing": 0.3, "ema_decay": 0.6}
STAGES = [
    {"name": "decoder", "steps": STEPS[0], "train": ["decoder"], "lr": {"peak": 3e-3, "warmup_steps": 2}},
    {
        "name": "span",
        "steps": STEPS[1],
        "train": ["decoder", "encoder", "gate"],
        "lr": {"peak": 3e-3, "decay": "cosine"},
        "span": SPAN,
    },
]
EMA = "stages.1.span.teacher=ema"
OTHERWISE = [
    EMA,
    "stages.1.span.gate_estimator=expected",
    "stages.1.span.explore=0.5",
    "stages.1.span.detach_pred=false",
    "model.span.shared_projection=false",
    "model.span.fill_order=confidence",
    "model.span.skip=true",
]
VARIANTS = {
    "zero3": {"set": [], "deepspeed": SPLIT_ALL},
    "zero0": {"set": [EMA, "parallel.zero_stage=0"]},
    "zero1_accumulation": {"set": [EMA, "parallel.zero_stage=1", "batch.micro=2"]},
    "zero3_small_whole": {"set": [EMA]},
    "zero3_otherwise": {"set": [*OTHERWISE, CHECKPOINTING], "deepspeed": SPLIT_ALL},
}
KINDS = {"": [], "ema": [EMA], "otherwise": OTHERWISE}


@pytest.fixture(scope="module")
def four_ranks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    variants = {name: variant | {"set": [TENSOR, *variant["set"]]} for name, variant in VARIANTS.items()}
    folder = tmp_path_factory.mktemp("span")
    return run_variants(4, 2, variants, data, folder, model=MODEL, stages=STAGES)


@pytest.fixture(scope="module")
def references(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, plain.Trained]:
    config = tiny.write_config(tmp_path_factory.mktemp("plain"), data, model=MODEL, stages=STAGES)
    return {kind: plain_span.train(load_run(config, changed), tiny.VOCAB) for kind, changed in KINDS.items()}


@pytest.mark.distributed
@pytest.mark.parametrize("variant", VARIANTS)
def test_four_ranks(variant: str, four_ranks: dict[str, dict], references: dict[str, plain.Trained]) -> None:
    overrides = VARIANTS[variant]["set"]
    kind = "otherwise" if OTHERWISE[-1] in overrides else "ema" if EMA in overrides else ""
    assert_same(four_ranks[variant], references[kind])


@pytest.mark.distributed
def test_the_teacher_matters_here(references: dict[str, plain.Trained]) -> None:
    """Else the variants would say nothing of the moving average: it is felt from the stage's second step on."""
    same, ema = references[""], references["ema"]
    assert same.losses[: STEPS[0] + 1] == ema.losses[: STEPS[0] + 1]
    assert all(abs(one - other) > 1e-3 for one, other in zip(same.losses[-2:], ema.losses[-2:], strict=True))
