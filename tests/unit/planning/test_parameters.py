"""The planner's list of parameters is that of the real models."""

from pathlib import Path

import pytest

from dualmask.config.load import load_run
from dualmask.families.edit.config import EditConfig
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from launcher.planner.parameters import by_module, learning, parameters

CONFIGS = sorted(Path(__file__).parents[3].glob("configs/*.yaml"))
SMALL = {"hidden": 24, "heads": 2, "max_length": 32}
MODELS = [
    EditConfig(**SMALL, filler_layers=3, inserter_layers=1, picker_layers=2, max_gap_count=5, ffn_multiple=3),
    LanguageModelConfig(**SMALL, family="autoregressive", layers=2),
    LanguageModelConfig(**SMALL, family="diffusion", layers=1, ffn_multiple=2),
    SpanFusionConfig(
        **SMALL, family="spanfusion", span=SpanModelConfig(decoder_layers=2, encoder_layers=3, gate_hidden=8)
    ),
    SpanFusionConfig(
        **SMALL,
        family="spanfusion",
        span=SpanModelConfig(decoder_layers=1, encoder_layers=1, shared_projection=False),
    ),
]


@pytest.fixture(autouse=True)
def _one_process():
    mesh.single_process()


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.family)
def test_names_and_shapes(config):
    model = build(config, 100)
    found = parameters(config, 100)
    assert {p.name: p.shape for p in found} == {name: tuple(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.family)
def test_split_axes_are_those_of_the_layers(config):
    real = {
        name: int(p.partition_dim) if getattr(p, "tensor_model_parallel", False) else None
        for name, p in build(config, 100).named_parameters()
    }
    assert {p.name: p.split for p in parameters(config, 100)} == real


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations(path):
    """At a smaller width: every shape is a product of widths that the small models prove."""
    run = load_run(path)
    config = run.model.model_copy(update={"hidden": run.model.heads * 2})
    model = build(config, 100)
    found = parameters(config, 100)
    assert sum(by_module(found).values()) == sum(p.numel() for p in model.parameters())
    for stage in run.stages:
        names = {name for name, _ in model.named_parameters() if stage.module_of(name)}
        assert {p.name for p in learning(found, stage)} == names
