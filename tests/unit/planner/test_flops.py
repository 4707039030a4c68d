"""The planner's operations are those that torch counts in the forward and backward passes of real steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stages import make_stage, make_task
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.runs import Size, random_batch
from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from dualmask.curriculum import plan_at
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.task import RoundsTask
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from dualmask.ops import deletion
from launcher.planner.flops import step_cost
from launcher.planner.passes import Draws, Shape, expected

SIZE = Size(hidden=32, length=24, sequences=6, vocabulary=200)
COMMON = {"hidden": SIZE.hidden, "heads": 2, "max_length": SIZE.length}
DUALMASK = EditConfig(**COMMON, filler_layers=2, inserter_layers=1, picker_layers=2)
WIDE = DUALMASK.model_copy(update={"hidden": 48, "filler_layers": 1, "picker_probes": 2, "ffn_multiple": 3})
TOLD = DUALMASK.model_copy(update={"told_pieces": 3})
SPAN = SpanFusionConfig(**COMMON, family="spanfusion", span=SpanModelConfig(decoder_layers=2, encoder_layers=1))
EVERY = {"ptr_count": 1, "keep_recover": 1, "keep_oracle": 1}
ALL = ["filler", "inserter", "picker", "gate"]
SPAN_MODULES = ["decoder", "encoder", "gate"]
Change = dict[str, Any]

CASES: dict[str, tuple[ModelConfig, Change]] = {
    "autoregressive": (
        LanguageModelConfig(**COMMON, family="autoregressive", layers=3),
        {"name": "lm", "train": ["lm"]},
    ),
    "diffusion": (LanguageModelConfig(**COMMON, family="diffusion", layers=2), {"name": "lm", "train": ["lm"]}),
    "filler": (DUALMASK, {"name": "filler", "train": ["filler"]}),
    "filler, kept tokens too": (WIDE, {"name": "filler", "train": ["filler"], "losses": {"kept_weight": 0.2}}),
    "inserter behind a frozen filler": (DUALMASK, {"name": "inserter", "train": ["inserter"], "losses": EVERY}),
    "inserter alone": (DUALMASK, {"name": "inserter", "train": ["inserter"], "losses": {"recon": 0, "ptr_count": 1}}),
    "one round": (DUALMASK, {"name": "picker", "train": ALL, "losses": EVERY}),
    "frozen filler": (DUALMASK, {"name": "picker", "train": ["inserter", "picker"], "losses": EVERY}),
    "frozen filler, revealed": (
        DUALMASK, {"name": "picker", "train": ["picker"], "losses": EVERY, "picker_gradient": 0.1}
    ),
    "rounds": (WIDE, {"name": "joint", "train": ALL, "losses": EVERY, "rollout": {"rounds": 3, "window": 2}}),
    "the gate compares": (
        DUALMASK,
        {"name": "joint", "train": ALL, "losses": EVERY | {"gate": 1},
         "rollout": {"rounds": 2, "window": 2, "gate_rows": 1, "first_round": "gate"}},
    ),
    "filler, pieces": (TOLD, {"name": "filler", "train": ["filler"]}),
    "inserter, pieces": (TOLD, {"name": "inserter", "train": ["inserter"], "losses": EVERY}),
    "rounds, pieces": (
        TOLD,
        {"name": "joint", "train": ALL, "losses": EVERY | {"gate": 1},
         "rollout": {"rounds": 2, "window": 2, "gate_rows": 1, "first_round": "gate"}},
    ),
    "decoder": (SPAN, {"name": "decoder", "train": ["decoder"]}),
    "span": (SPAN, {"name": "span", "train": SPAN_MODULES, "span": {"lengths": [8]}}),
    "span, own teacher": (SPAN, {"name": "span", "train": SPAN_MODULES, "span": {"lengths": [6], "teacher": "ema"}}),
    "span, nothing detached": (
        SPAN, {"name": "span", "train": SPAN_MODULES,
               "span": {"lengths": [8], "detach_pred": False, "losses": {"latent": 0, "pred": 0.2}}},
    ),
    "span, decoder unheard": (
        SPAN, {"name": "span", "train": SPAN_MODULES, "span": {"lengths": [8], "detach_entropy": True}}
    ),
}  # fmt: skip


def measured(config: ModelConfig, stage: StageConfig, checkpointing: bool) -> tuple[float, list[Draws] | None]:
    """Operations that torch counts, and what this batch drew in each round."""
    mesh.single_process()
    torch.manual_seed(0)
    model = build(config, SIZE.vocabulary, activation_checkpointing=checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.module_of(name) is not None)
    taught, plan, batch, seen = make_task(model, stage), plan_at([stage], 0), random_batch(SIZE, 0), []
    state = None
    for rounds in taught.windows(plan) if config.family == "dualmask" else ():
        with torch.no_grad():
            if isinstance(taught, RoundsTask):
                outs, state = taught.play(batch, EditPlan.of(plan), rounds, state)
            else:
                outs = [model(batch, EditPlan.of(plan))]
        seen += [_draws(out) for out in outs]
    state = None
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for rounds in taught.windows(plan):
            out = taught.window(batch, plan, rounds, state)
            out.total.backward()
            state = out.state
    return float(counter.get_total_flops()), seen or None


def _draws(out: Any) -> Draws:
    slots = 0.0 if out.filler is None else len(out.filler.slot)
    compared = 0.0 if out.gate is None else float(out.gate.compared.sum())
    masks = slots if out.filler is None else float((out.filler.slot_weight >= 0).sum())
    return Draws(slots, masks, compared)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("case", CASES)
def test_flops_of_a_step(case: str, checkpointing: bool):
    config, change = CASES[case]
    stage = make_stage({"steps": 1, "lr": {"peak": 1e-3}} | change)
    counted, draws = measured(config, stage, checkpointing)
    shape = Shape(config, SIZE.vocabulary, SIZE.sequences, checkpointing)
    assert step_cost(shape, stage, draws).total == pytest.approx(counted, rel=0.02)


def test_expected_draws_of_random_holes():
    """Mean over many texts of what stage filler really deletes."""
    stage = make_stage({"steps": 1, "lr": {"peak": 1e-3}} | CASES["filler"][1])
    many = Size(hidden=32, length=24, sequences=2000, vocabulary=200)
    plan, batch = EditPlan.of(plan_at([stage], 0)), random_batch(many, 0)
    asked = deletion.keep_rates(batch.key, 0, plan.keep_rate_low, plan.keep_rate_high)
    real = float(deletion.budget(batch.deletable, asked).sum())
    assert expected(Shape(DUALMASK, 200, 2000), stage)[0].masks == pytest.approx(real, rel=0.02)
