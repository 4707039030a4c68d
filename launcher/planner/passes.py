"""The passes of a training step in their order: which module reads how many tokens, and does a gradient come back?

Operations (flops.py), bytes that ranks send (gathers.py, traffic.py) and bytes that autograd keeps (activations.py) are
folds over this one walk. What depends on the data enters by ``Draws``; ``expected`` says what to assume of them.
"""

# T tokens a sequence, K tokens of a span

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from dualmask.config.model import ModelConfig
from dualmask.config.schedule import Schedule
from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import EditConfig, EditStage, RolloutConfig, RoundStage
from dualmask.families.lm.config import LanguageModelStage
from dualmask.families.span.config import DraftStage, SpanFusionConfig, SpanFusionStage, SpanStage

# learn: gradients of weights and inputs; through: of inputs only; position: of rotary positions only; none: no gradient
Gradient = Literal["learn", "through", "position", "none"]
# lookup and logits are the token table's, mix the mean of likely tokens' embeddings; all others are parts of a model
Module = Literal["lookup", "mix", "logits", "filler", "inserter", "picker", "gate", "lm", "decoder", "encoder"]
# what is asked of logits: a loss reads them once, a masked-LM score and a draw also want the likeliest tokens
Reading = Literal["none", "loss", "score", "likeliest", "draw"]


@dataclass(frozen=True)
class Pass:
    module: Module
    tokens: float  # of all sequences of the batch; of the gate: sequences
    gradient: Gradient
    slots: float = 0.0  # positions that a module's head reads; of "mix": embeddings of each token
    reach: float = 0.0  # keys of each token in attention, masked or not
    reading: Reading = "none"
    twin: bool = False  # of a second model: the teacher
    hinted: bool = False  # the filler's map of what was deleted is multiplied with, if only by zeros
    told: bool = False  # so are the maps of a gap's pieces, of filler and inserter


Round = tuple[Pass, ...]
Window = tuple[Round, ...]  # the rounds that one backward pass goes back through


@dataclass(frozen=True)
class Shape:
    """What a step is made of."""

    config: ModelConfig
    vocab_size: int
    sequences: int  # of the batch: the global one, or a rank's micro-batch
    checkpointing: bool = False


@dataclass(frozen=True)
class Draws:
    """What one round's data decide, over the batch."""

    slots: float  # positions whose tokens the filler is asked for
    masks: float  # of them, holes
    compared: float = 0.0  # texts on which the Gate's other decision is tried as well


def walk(
    shape: Shape, stage: StageConfig, draws: Sequence[Draws] | None = None, span_length: float | None = None
) -> list[Window]:
    """Of each backward pass of a step at the end of the stage. ``draws``: of each round; None: ``expected``.

    span_length: of SpanFusionLM's spans, None: the mean of the stage's.
    """
    draws = expected(shape, stage) if draws is None else draws
    if isinstance(stage, SpanFusionStage):
        return [(tuple(_span(shape, stage, span_length)),)]
    if isinstance(stage, LanguageModelStage):
        return [(tuple(_texts(shape, "lm", draws[0].slots, "learn")),)]
    assert isinstance(stage, EditStage)
    if not isinstance(stage, RoundStage):
        return [(tuple(_random_holes(shape, stage, draws[0])),)]
    width, rounds = stage.rollout.window, range(len(draws))
    return [
        tuple(
            tuple(_round(shape, stage, draws[number], draws[number - 1] if number > first else None))
            for number in rounds[first : first + width]
        )
        for first in rounds[::width]
    ]


def flat(windows: Sequence[Window]) -> Iterator[Pass]:
    return chain.from_iterable(chain.from_iterable(windows))


def mean(schedule: Schedule) -> float:
    return (schedule.start + schedule.end) / 2


def expected(shape: Shape, stage: StageConfig) -> list[Draws]:
    """For full-length sequences, schedules at their mean, and every later round as full of holes as the first.

    Raises ValueError for a family whose passes the planner does not know.
    """
    config = shape.config
    inner, rows = config.max_length - 2, shape.sequences
    if isinstance(stage, SpanFusionStage | LanguageModelStage):
        slots = rows * ((inner + 1) / 2 if config.family == "diffusion" else inner + 1)
        return [Draws(slots, slots)]
    if not isinstance(stage, EditStage) or not isinstance(config, EditConfig):
        raise ValueError(f"the planner does not know the passes of the family {config.family}")
    picks, rollout = isinstance(stage, RoundStage), RolloutConfig()
    if isinstance(stage, RoundStage):
        rollout = stage.rollout
    kept = (mean(stage.deletion.keep_rate_low) + mean(stage.deletion.keep_rate_high)) / 2
    holes = {"rewrite": (1 - kept) * inner, "skeleton": (1 - kept) * inner}
    holes |= dict.fromkeys(("prefix", "empty"), min(config.max_gap_count, inner))  # one gap takes no more a round
    holes["corrupted"] = (rollout.corruption.rate_low + rollout.corruption.rate_high) / 2 * inner
    shares = {str(kind): share for kind, share in rollout.starts.items()} if picks else {"skeleton": 1.0}
    masks = sum(share * holes.get(kind, 0.0) for kind, share in shares.items()) / sum(shares.values())
    copies = rows * (rollout.samples if picks else 1)
    slots = copies * (inner if stage.losses.kept_weight > 0 else masks)
    free = 1 - shares.get("rewrite", 0.0) / sum(shares.values())
    compares = isinstance(stage, RoundStage) and stage.gate_decides and rollout.gate_rows > 0
    compared = max(1.0, copies * free * rollout.gate_rows) if compares else 0.0
    return [Draws(slots, copies * masks, compared)] * (rollout.rounds if picks else 1)


def _trunk(shape: Shape, module: Module, rows: float, gradient: Gradient, slots: float = 0.0) -> Pass:
    """Over ``rows`` whole texts."""
    length = shape.config.max_length
    return Pass(module, rows * length, gradient, slots, reach=length)


def _texts(shape: Shape, module: Module, slots: float, gradient: Gradient) -> Iterator[Pass]:
    """A language model over all texts."""
    trunk = _trunk(shape, module, float(shape.sequences), gradient)
    yield from (Pass("lookup", trunk.tokens, gradient), trunk, Pass("logits", slots, gradient, reading="loss"))


def _random_holes(shape: Shape, stage: EditStage, draws: Draws) -> Iterator[Pass]:
    """A round in which nobody picks."""
    rows, looked_up = float(shape.sequences), _looked_up(stage)
    if "inserter" in stage.train:
        yield Pass("lookup", rows * shape.config.max_length, looked_up)
        yield _inserter(shape, rows, "learn", told=False)
    if mean(stage.losses.recon) > 0:
        filling: Gradient = "learn" if "filler" in stage.train else "position" if "inserter" in stage.train else "none"
        yield from _filled(shape, rows, draws.slots, filling, looked_up, told=False)


def _round(shape: Shape, stage: RoundStage, draws: Draws, before: Draws | None) -> Iterator[Pass]:
    """``before``: the round whose tokens carry a gradient into this one; None at the head of a window."""
    config = shape.config
    assert isinstance(config, EditConfig)
    probes = config.picker_probes
    rows, looked_up = float(shape.sequences * stage.rollout.samples), _looked_up(stage)
    filling, counting = _gradients(stage, before is not None)
    yield Pass("lookup", rows * config.max_length, looked_up)
    if stage.soft_tokens and before is not None:
        top = stage.rollout.top_k
        yield Pass("lookup", before.masks * top, "none")
        yield Pass("mix", before.masks, "none" if filling == "none" else "through", top)
    if probes:  # masked-LM scores of every token, for the picker
        yield from _filled(shape, rows * probes, rows * (config.max_length - 2), "none", "none", "score")
    yield _trunk(shape, "picker", rows, "learn")
    yield Pass("gate", rows, "learn" if "gate" in stage.train else "none")
    yield _inserter(shape, rows, counting)
    yield from _filled(shape, rows, draws.slots, filling, looked_up)
    if draws.compared:
        yield _inserter(shape, draws.compared, "none")
        yield from _filled(shape, draws.compared, draws.slots / rows * draws.compared, "none", "none")
    yield Pass("logits", draws.masks, "none", reading="draw")


def _looked_up(stage: StageConfig) -> Gradient:
    return "learn" if "filler" in stage.train else "none"


def _gradients(stage: RoundStage, follows: bool) -> tuple[Gradient, Gradient]:
    """Of filler and inserter in a round. ``follows``: another round of the window handed its tokens on to it."""
    fills, counts = "filler" in stage.train, "inserter" in stage.train
    positions = counts and stage.rollout.count_estimator == "straight_through"
    frozen: Gradient = "through" if stage.picker_gradient > 0 else "position" if positions else "none"
    filling: Gradient = "learn" if fills else frozen
    softened = stage.soft_tokens and follows and filling != "none"
    if softened and not fills:
        filling = "through"
    return filling, "learn" if counts else "through" if fills or softened else "none"


def _filled(
    shape: Shape,
    rows: float,
    slots: float,
    gradient: Gradient,
    looked_up: Gradient,
    reading: Reading = "loss",
    *,
    told: bool = True,
) -> Iterator[Pass]:
    hinted = reading == "loss"
    trunk = replace(_trunk(shape, "filler", rows, gradient, slots), hinted=hinted, told=hinted and told)
    yield from (Pass("lookup", trunk.tokens, looked_up), trunk, Pass("logits", slots, gradient, reading=reading))


def _inserter(shape: Shape, rows: float, gradient: Gradient, *, told: bool = True) -> Pass:
    return replace(_trunk(shape, "inserter", rows, gradient, rows * (shape.config.max_length - 1)), told=told)


def _span(shape: Shape, stage: SpanFusionStage, length: float | None) -> Iterator[Pass]:
    """The decoder over whole texts, then the refinement steps of one span a text, and those of the teacher."""
    assert isinstance(shape.config, SpanFusionConfig)
    parts, rows = shape.config.span, shape.sequences
    reads: Gradient = "learn" if "decoder" in stage.train else "none"
    slots = float(rows * (shape.config.max_length - 1))
    yield from _texts(shape, "decoder", slots, reads)
    if isinstance(stage, DraftStage):
        yield from _drafts(shape, stage, reads)
    if not isinstance(stage, SpanStage):
        return
    settings = stage.span
    length = sum(settings.lengths) / len(settings.lengths) if length is None else length
    step = tuple(_step(shape, stage, length, reads))
    yield Pass("lookup", rows * length, reads)
    for _ in range(parts.g_max):
        yield from (*step, Pass("logits", rows * length, "none", reading="draw"))
    if settings.losses.latent > 0:
        twin = settings.teacher == "ema"
        if twin:
            yield from (replace(one, twin=True) for one in list(_texts(shape, "decoder", slots, "none"))[:2])
        yield Pass("lookup", rows * length, "none", twin=twin)
        taught = [replace(one, gradient="none", twin=twin) for one in step]
        taught[4] = replace(taught[4], reading="none")  # nothing is lost on the encoder's logits
        for _ in range(parts.g_max):
            yield from (*taught, Pass("logits", rows * length, "none", reading="likeliest", twin=twin))


def _drafts(shape: Shape, stage: DraftStage, reads: Gradient) -> Iterator[Pass]:
    """The decoder's own continuations, a token at a time behind its cache, then one step of as many spans a text."""
    length = sum(stage.draft.lengths) / len(stage.draft.lengths)
    tokens, reach = shape.sequences * length, shape.config.max_length + length
    refines: Gradient = "learn" if "encoder" in stage.train else "none"
    for _ in range(stage.draft.spans):
        yield Pass("decoder", tokens * (length + 1) / 2, "none", reach=reach)
        yield Pass("logits", tokens, "none", reading="likeliest")
        yield Pass("lookup", tokens, reads)
        yield Pass("decoder", tokens, reads, reach=reach)
        yield Pass("logits", tokens, reads, reading="loss")
        yield Pass("encoder", tokens, refines, reach=length)
        yield Pass("logits", tokens, reads, reading="loss")


def _step(shape: Shape, stage: SpanStage, length: float, reads: Gradient) -> Iterator[Pass]:
    """One refinement step: the decoder behind its cache of the text, the encoder, both logits, the GateNet."""
    settings, tokens = stage.span, shape.sequences * length
    audible = settings.losses.pred > 0 or not settings.detach_entropy  # a loss hears the decoder's logits
    refines: Gradient = "learn" if "encoder" in stage.train else "none" if settings.detach_pred else "through"
    # to the encoder, past a frozen table
    projects: Gradient = "through" if refines != "none" and reads == "none" else reads
    heard = reads if audible or not settings.detach_pred else "none"
    yield Pass("lookup", tokens, reads)
    yield Pass("decoder", tokens, heard, reach=shape.config.max_length + length)
    yield Pass("logits", tokens, reads if audible else "none", reading="loss")  # their entropy
    yield Pass("encoder", tokens, refines, reach=length)
    yield Pass("logits", tokens, projects, reading="none" if projects == "none" else "loss")
    yield Pass("gate", tokens, "learn" if refines == "learn" else "none")
