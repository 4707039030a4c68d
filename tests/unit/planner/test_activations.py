"""What the planner says autograd keeps is what it keeps, in the first window of real steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from stages import make_stage, make_task
from test_flops import ALL, CASES, DUALMASK, EVERY

from benchmarks.runs import Size, random_batch
from benchmarks.saved_bytes import SavedBytes
from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from dualmask.curriculum import plan_at
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from launcher.planner.activations import Sizes
from launcher.planner.passes import Draws
from launcher.planner.peaks import activation_peaks

SIZE = Size(hidden=96, length=64, sequences=8, vocabulary=500)


def wider(config: ModelConfig) -> ModelConfig:
    """Small figures, which are counted roundly, must not rule."""
    return config.model_copy(update={"hidden": SIZE.hidden, "max_length": SIZE.length})


def kept(config: ModelConfig, stage: StageConfig, checkpointing: bool) -> int:
    mesh.single_process()
    torch.manual_seed(0)
    model = build(config, SIZE.vocabulary, activation_checkpointing=checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.module_of(name) is not None)
    taught, plan, batch = make_task(model, stage), plan_at([stage], 0), random_batch(SIZE, 0)
    meter = SavedBytes(taught.parameters())
    with meter.hooks():
        taught.window(batch, plan, taught.windows(plan)[0], None).total.backward()
    return meter.peak


def planned(config: ModelConfig, stage: StageConfig, checkpointing: bool) -> float:
    sizes = Sizes(config, SIZE.vocabulary, SIZE.sequences, tensor=1, element=4, checkpointing=checkpointing, cpu=True)
    return max(peak.activations for peak in activation_peaks(stage, sizes, drawn(config, stage)))


def drawn(config: ModelConfig, stage: StageConfig) -> list[Draws] | None:
    """Diffusion masks any share of a text: so few texts are a matter of chance."""
    if config.family != "diffusion":
        return None
    mesh.single_process()
    masks = len(build(config, SIZE.vocabulary)(random_batch(SIZE, 0), plan_at([stage], 0)).slot)
    return [Draws(masks, masks)]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("case", CASES)
def test_bytes_kept_for_backward(case: str, checkpointing: bool):
    config, change = CASES[case]
    deletes = config.family == "dualmask"
    half = {"deletion": {"keep_rate_low": 0.5, "keep_rate_high": 0.5}} if deletes else {}
    stage = make_stage({"steps": 1, "lr": {"peak": 1e-3}} | change | half)
    config = wider(config)
    assert planned(config, stage, checkpointing) == pytest.approx(kept(config, stage, checkpointing), rel=0.1)


def stage_of(rounds: int, window: int) -> StageConfig:
    change = {"name": "joint", "train": ALL, "losses": EVERY, "rollout": {"rounds": rounds, "window": window}}
    return make_stage({"steps": 1, "lr": {"peak": 1e-3}} | change)


def test_what_they_depend_on():
    """On the window, not on the rounds; split layers share them, and checkpointing leaves a block's input alone."""
    config = wider(DUALMASK)
    four, sixteen, wide = (planned(config, stage_of(*how), False) for how in ((4, 2), (16, 2), (16, 4)))
    assert four == sixteen
    assert 1.9 * four < wide < 2.1 * four
    assert planned(config, stage_of(4, 2), True) < four / 2
    whole = Sizes(config, SIZE.vocabulary, SIZE.sequences, tensor=1, element=4, checkpointing=False, cpu=False)
    split = activation_peaks(stage_of(4, 2), replace(whole, tensor=2))
    assert (
        0.5
        < max(peak.activations for peak in split)
        / max(peak.activations for peak in activation_peaks(stage_of(4, 2), whole))
        < 0.8
    )
