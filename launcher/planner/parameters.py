"""Every parameter of a model by name, shape and split, without building the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from launcher.planner.sections import of

TABLE_MULTIPLE = 64  # rows of a token table are padded to a multiple of this
NEIGHBOURS = 5  # tokens that a trunk mixes before its blocks
RATE_FEATURES, OPINIONS, STATISTICS = 16, 4, 7  # inputs of the small linear layers of picker and Gate
PICKER_OUTPUTS = 6  # alone, four neighbours, wrong


@dataclass(frozen=True)
class Parameter:
    name: str
    shape: tuple[int, ...]
    split: int | None = None  # the axis that lies over the tensor-parallel ranks; None: whole on each

    @property
    def module(self) -> str:
        return self.name.split(".", 1)[0]

    def size(self, tensor: int = 1) -> int:
        """Elements on one of ``tensor`` tensor-parallel ranks."""
        return prod(self.shape) // (1 if self.split is None else tensor)


def parameters(config: ModelConfig, vocab_size: int) -> list[Parameter]:
    """Of a model of ``config.family``, in the model's own order."""
    return list(_every(config, vocab_size))


@lru_cache(maxsize=16)
def _every(config: ModelConfig, vocab_size: int) -> tuple[Parameter, ...]:
    if config.family == "dualmask":
        return tuple(_dualmask(config, vocab_size))
    if config.family == "spanfusion":
        return tuple(_span_fusion(config, vocab_size))
    assert of(config).layers is not None
    return (*_table("table", vocab_size, config.hidden), *_trunk("lm", config, of(config).layers))


def learning(found: list[Parameter], stage: StageConfig) -> list[Parameter]:
    """Those that the stage teaches. A token table learns with the trunk whose input and output it is."""
    return [p for p in found if learns_with(p, stage) in stage.train]


def learns_with(parameter: Parameter, stage: StageConfig) -> str:
    """The module whose learning rate and gradient reach it."""
    if parameter.module not in ("table", "projection"):
        return parameter.module
    return next((name for name in ("lm", "decoder") if name in stage.train), "filler")


def by_module(found: list[Parameter], tensor: int = 1) -> dict[str, int]:
    """Elements of each module on one tensor-parallel rank."""
    sizes: dict[str, int] = {}
    for parameter in found:
        sizes[parameter.module] = sizes.get(parameter.module, 0) + parameter.size(tensor)
    return sizes


def padded(vocab_size: int) -> int:
    """Rows of a token table."""
    return -(-vocab_size // TABLE_MULTIPLE) * TABLE_MULTIPLE


def _dualmask(config: ModelConfig, vocab_size: int) -> Iterator[Parameter]:
    width = config.hidden
    yield from _table("table", vocab_size, width)
    yield from _trunk("filler.trunk", config, of(config).filler_layers)
    yield Parameter("filler.up.weight", (width, width), 0)
    yield Parameter("filler.down.weight", (width, width), 1)
    yield from _norm("filler.norm", width)
    yield from _trunk("inserter.trunk", config, of(config).inserter_layers)
    yield Parameter("inserter.left.weight", (width, width), 0)
    yield Parameter("inserter.right.weight", (width, width), 0)
    yield Parameter("inserter.count.weight", (of(config).max_gap_count + 1, width), 1)
    yield Parameter("picker.trust", (4,))
    yield from _trunk("picker.trunk", config, of(config).picker_layers)
    yield from _linear("picker.rate", RATE_FEATURES, width)
    yield from _linear("picker.opinion", OPINIONS, width)
    yield from _linear("picker.delete", width, PICKER_OUTPUTS)
    yield from _norm("gate.norm", width)
    yield Parameter("gate.state.weight", (width, width))
    yield from _linear("gate.statistics", STATISTICS, width)
    yield from _linear("gate.decide", width, 1)


def _span_fusion(config: ModelConfig, vocab_size: int) -> Iterator[Parameter]:
    assert of(config).span is not None
    width, gate = config.hidden, of(config).span.gate_hidden
    yield from _table("table", vocab_size, width, bias=of(config).span.shared_projection)
    if not of(config).span.shared_projection:
        yield from _table("projection", vocab_size, width)
    yield from _trunk("decoder", config, of(config).span.decoder_layers)
    for number in range(of(config).span.encoder_layers):
        yield from _block(f"encoder.blocks.{number}", config, cross=True)
    yield from _norm("encoder.norm", width)
    yield from _linear("gate.first", 1, gate)
    yield from _norm("gate.first_norm", gate)
    yield from _linear("gate.second", gate, gate)
    yield from _norm("gate.second_norm", gate)
    yield from _linear("gate.last", gate, 2)


def _trunk(name: str, config: ModelConfig, layers: int) -> Iterator[Parameter]:
    yield Parameter(f"{name}.neighbours.weight", (NEIGHBOURS, config.hidden))
    for number in range(layers):
        yield from _block(f"{name}.blocks.{number}", config)
    yield from _norm(f"{name}.norm", config.hidden)


def _block(name: str, config: ModelConfig, *, cross: bool = False) -> Iterator[Parameter]:
    width, inner = config.hidden, config.ffn_multiple * config.hidden
    yield from _norm(f"{name}.attention_norm", width)
    yield Parameter(f"{name}.attention.qkv.weight", (3 * width, width), 0)
    yield Parameter(f"{name}.attention.output.weight", (width, width), 1)
    if cross:
        yield from _norm(f"{name}.cross_norm", width)
        yield Parameter(f"{name}.cross.query.weight", (width, width), 0)
        yield Parameter(f"{name}.cross.key_value.weight", (2 * width, width), 0)
        yield Parameter(f"{name}.cross.output.weight", (width, width), 1)
    yield from _norm(f"{name}.mlp_norm", width)
    yield Parameter(f"{name}.mlp.up.weight", (inner, width), 0)
    yield Parameter(f"{name}.mlp.down.weight", (width, inner), 1)


def _table(name: str, vocab_size: int, width: int, *, bias: bool = True) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (padded(vocab_size), width), 0)
    if bias:
        yield Parameter(f"{name}.output_bias", (padded(vocab_size),), 0)


def _linear(name: str, d_in: int, d_out: int) -> Iterator[Parameter]:
    """A replicated linear layer with bias."""
    yield Parameter(f"{name}.weight", (d_out, d_in))
    yield Parameter(f"{name}.bias", (d_out,))


def _norm(name: str, width: int) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (width,))
    yield Parameter(f"{name}.bias", (width,))
