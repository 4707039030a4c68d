"""The planner's list of parameters, made on the meta device, is that of the real models."""

import time
from pathlib import Path

import pytest

from dualmask.config.load import load_run
from dualmask.families.edit.config import EditConfig
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from launcher.planner.parameters import by_module, learning, matrices, parameters

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


def test_the_largest_model_takes_no_memory_and_no_time():
    run = load_run(CONFIGS[0].parent / "dualmask_70b.yaml")
    parameters.cache_clear()
    start = time.process_time()
    sizes = by_module(parameters(run.model, 65536))
    assert time.process_time() - start < 5  # measured: 0.2 s
    assert sum(sizes.values()) > 7e10


def test_matrices_of_a_module_are_those_of_its_blocks_and_its_head():
    """Together they are all that has two axes, but for the convolutions."""
    config = MODELS[0]
    modules = matrices(config, 100)
    assert {name: part.layers for name, part in modules.items() if part.layers} == {
        "filler": 3, "inserter": 1, "picker": 2,
    }  # fmt: skip
    counted = sum(
        part.layers * sum(p.size() for p in part.block) + sum(p.size() for p in part.head)
        for name, part in modules.items()
        if name != "logits"
    )
    every = [p for p in parameters(config, 100) if len(p.shape) == 2 and "neighbours" not in p.name]
    assert counted == sum(p.size() for p in every)
