"""The calls of a window of rounds in their order: which module reads how many places, and does a gradient come back?

What travels between ranks depends on this order. Operations do not, and stand in ``flops.py``.
"""

# K places of a span

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dualmask.config.model import ModelConfig
from dualmask.config.stage import StageConfig
from launcher.planner.flops import Draws, Gradient, Shape, filling_alone, gradients, mean
from launcher.planner.sections import of

# lookup and logits are the token table's; a loss reads logits once, an opinion and a draw also ask for the likeliest
Module = Literal["lookup", "logits", "filler", "inserter", "picker", "gate", "lm", "decoder", "encoder"]
Reading = Literal["none", "loss", "opinion", "likeliest", "draw"]


@dataclass(frozen=True)
class Pass:
    module: Module
    places: float  # tokens of all sequences of the global batch
    gradient: Gradient
    slots: float = 0.0  # places that a module's head looks at
    reading: Reading = "none"
    twin: bool = False  # of a second model: the teacher


def layers(config: ModelConfig, module: Module) -> int:
    """Blocks of a module's trunk; 0: it has none."""
    depth = {
        "filler": of(config).filler_layers, "inserter": of(config).inserter_layers, "picker": of(config).picker_layers,
        "lm": of(config).layers or 0,
    }  # fmt: skip
    if of(config).span is not None:
        depth |= {"decoder": of(config).span.decoder_layers, "encoder": of(config).span.encoder_layers}
    return depth.get(module, 0)


def windows(shape: Shape, stage: StageConfig, draws: Sequence[Draws]) -> list[list[Pass]]:
    """The passes of each backward pass of a step. ``draws``: of each round."""
    family = shape.config.family
    if family in ("autoregressive", "diffusion"):
        places = float(shape.sequences * shape.config.max_length)
        trunk = Pass("lm", places, "learn")
        return [[Pass("lookup", places, "learn"), trunk, Pass("logits", draws[0].slots, "learn", reading="loss")]]
    if family == "spanfusion":
        return [list(_span(shape, stage))]
    if "picker" not in stage.train:
        return [list(_random_holes(shape, stage, draws[0]))]
    width = of(stage).rollout.window
    rounds = range(len(draws))
    return [
        [
            one
            for number in rounds[first : first + width]
            for one in _round(shape, stage, draws[number], draws[number - 1] if number > first else None)
        ]
        for first in rounds[::width]
    ]


def _random_holes(shape: Shape, stage: StageConfig, draws: Draws) -> Iterator[Pass]:
    places = float(shape.sequences * shape.config.max_length)
    looked_up: Gradient = "learn" if "filler" in stage.train else "none"
    if "inserter" in stage.train:
        yield Pass("lookup", places, looked_up)
        yield _inserter(shape, shape.sequences, "learn")
    if mean(of(stage).losses.recon) > 0:
        yield Pass("lookup", places, looked_up)
        yield Pass("filler", places, filling_alone(stage), draws.slots)
        yield Pass("logits", draws.slots, filling_alone(stage), reading="loss")


def _round(shape: Shape, stage: StageConfig, draws: Draws, before: Draws | None) -> Iterator[Pass]:
    config, filling = shape.config, gradients(stage, before is not None)
    rows = float(shape.sequences * of(stage).rollout.samples)
    places, probes = rows * config.max_length, of(config).picker_probes
    looked_up: Gradient = "learn" if "filler" in stage.train else "none"
    yield Pass("lookup", places, looked_up)
    if of(stage).soft_tokens and before is not None:
        yield Pass("lookup", before.masks * of(stage).rollout.top_k, "none")
    if probes:
        asked = rows * (config.max_length - 2)
        yield from _filled(places * probes, asked, "none", "none", "opinion")
    yield Pass("picker", places, "learn")
    yield Pass("gate", rows, "learn" if "gate" in stage.train else "none")
    yield from _completed(shape, rows, draws.slots, filling, looked_up)
    if draws.compared:
        slots = draws.slots / rows * draws.compared
        yield from _completed(shape, draws.compared, slots, ("none", "none"), "none")
    yield Pass("logits", draws.masks, "none", reading="draw")


def _completed(
    shape: Shape, rows: float, slots: float, gradient: tuple[Gradient, Gradient], looked_up: Gradient
) -> Iterator[Pass]:
    """``gradient``: of filler and inserter."""
    filling, counting = gradient
    yield _inserter(shape, rows, counting)
    yield from _filled(rows * shape.config.max_length, slots, filling, looked_up, "loss")


def _filled(places: float, slots: float, filling: Gradient, looked_up: Gradient, reading: Reading) -> Iterator[Pass]:
    yield Pass("lookup", places, looked_up)
    yield Pass("filler", places, filling, slots)
    yield Pass("logits", slots, filling, reading=reading)


def _inserter(shape: Shape, rows: float, gradient: Gradient) -> Pass:
    length = shape.config.max_length
    return Pass("inserter", rows * length, gradient, rows * (length - 1))


def _span(shape: Shape, stage: StageConfig) -> Iterator[Pass]:
    """The decoder over whole texts, then the steps of one span; of the mean length where there are several."""
    parts, how, rows = of(shape.config).span, of(stage).span, shape.sequences
    assert parts is not None
    reads: Gradient = "learn" if "decoder" in stage.train else "none"
    texts = float(rows * shape.config.max_length)
    yield Pass("lookup", texts, reads)
    yield Pass("decoder", texts, reads)
    yield Pass("logits", texts - rows, reads, reading="loss")
    if how is None:
        return
    said: Gradient = reads if how.losses.pred > 0 or not how.detach_entropy else "none"
    heard: Gradient = reads if said != "none" or not how.detach_pred else "none"
    refines: Gradient = "learn" if "encoder" in stage.train else "none" if how.detach_pred else "through"
    projects: Gradient = "through" if refines != "none" and reads == "none" else reads
    places = rows * sum(how.lengths) / len(how.lengths)
    yield Pass("lookup", places, reads)
    for _ in range(parts.g_max):
        yield from _step(places, reads, heard, said, refines, projects)
        yield Pass("logits", places, "none", reading="draw")
    if how.losses.latent > 0:
        twin = how.teacher == "ema"
        if twin:
            yield Pass("lookup", texts, "none", twin=True)
            yield Pass("decoder", texts, "none", twin=True)
        yield Pass("lookup", places, "none", twin=twin)
        for _ in range(parts.g_max):
            yield from _step(places, "none", "none", "none", "none", "none", twin=twin)
            yield Pass("logits", places, "none", reading="likeliest", twin=twin)


def _step(
    places: float, looks: Gradient, heard: Gradient, said: Gradient, refines: Gradient, projects: Gradient, *,
    twin: bool = False,
) -> Iterator[Pass]:  # fmt: skip
    yield Pass("lookup", places, looks, twin=twin)
    yield Pass("decoder", places, heard, twin=twin)
    yield Pass("logits", places, said, reading="loss", twin=twin)  # their entropy
    yield Pass("encoder", places, refines, twin=twin)
    yield Pass("logits", places, projects, reading="loss" if projects != "none" else "none", twin=twin)
    yield Pass("gate", places, refines if refines == "learn" else "none", twin=twin)
