"""The points of a forward and backward pass at which a rank may hold most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dualmask.config.stage import StageConfig
from dualmask.families.edit.config import RoundStage
from dualmask.families.span.config import SpanFusionConfig, SpanStage
from launcher.planner.activations import SINGLE, Sizes, backward_of_block, beside_logits, head, kept, trunk
from launcher.planner.passes import Draws, Gradient, Pass, Reading, Round, Shape, Window, flat, walk


@dataclass(frozen=True)
class Peak:
    """Of a forward and backward pass: bytes that are kept for backward, and those that are used besides."""

    activations: float
    workspace: float = 0.0
    reducing: bool = False  # the first gradients of weights are there
    fetching: bool = False  # towards the end of the step's first forward pass


def activation_peaks(stage: StageConfig, sizes: Sizes, draws: Sequence[Draws] | None = None) -> list[Peak]:
    """``draws``: what a micro-batch's data decide in each round; None: what is to be expected.

    Of SpanFusionLM's spans, those of the stage's longest.
    """
    shape = Shape(sizes.config, sizes.vocab_size, sizes.sequences, sizes.checkpointing)
    windows = walk(shape, stage, draws, max(stage.span.lengths) if isinstance(stage, SpanStage) else None)
    if isinstance(stage, SpanStage):
        return list(_span(sizes, stage, list(flat(windows))))
    return [peak for window in windows for peak in _window(sizes, stage, window)]


def _window(sizes: Sizes, stage: StageConfig, window: Window) -> Iterator[Peak]:
    """Of the rounds that one backward pass goes back through, or of a language model's one pass."""
    rounds = [sum(kept(sizes, one) for one in played) + _drafts(sizes, stage, played) for played in window]
    saved, last = sum(rounds), _written(window[-1])
    body, said = sum(trunk(sizes, one) for one in last), sum(head(sizes, one) for one in last)
    yield Peak(rounds[0] - sum(head(sizes, one) for one in _written(window[0])), fetching=True)
    yield Peak(saved, beside_logits(sizes, last[-1].tokens) if last else 0.0)
    if draw := _reading(window[-1], "draw"):
        # logits of all rounds live until the loss; those of masks once more, as float32, and without special ids
        spoken = [
            one.tokens * sizes.logits * sizes.element for played in window for one in _reading(played, "loss")[:1]
        ]
        yield Peak(saved, sum(spoken) + draw[0].tokens * sizes.logits * (sizes.element + SINGLE + sizes.rounded))
        for filler, logits in pairwise(window[-1]):
            if logits.reading == "score":
                yield Peak(sum(rounds[:-1]), sum(spoken[:-1]) + _scores(sizes, filler, logits))
    if last:  # back through the writer first; while it is frozen, no gradient of a weight is there yet
        yield Peak(saved - said, backward_of_block(sizes, last[0]), reducing=last[0].gradient == "learn")
    if not last or last[0].gradient != "learn":
        learning = next(one for one in window[-1] if one.gradient == "learn" and one.reach)
        yield Peak(saved - said - body, backward_of_block(sizes, learning), reducing=True)


def _written(played: Round) -> list[Pass]:
    """The pass that writes tokens, and its logits; [] where no gradient comes back through them."""
    writers = ("filler", "lm", "decoder", "logits")
    return [one for one in played if one.module in writers and one.gradient != "none"]


def _reading(played: Round, reading: Reading) -> list[Pass]:
    return [one for one in played if one.reading == reading]


def _drafts(sizes: Sizes, stage: StageConfig, played: Round) -> float:
    """Embeddings of the drafts of a round: where they are cut and masked, and as the picker's choice reveals them."""
    revealed = isinstance(stage, RoundStage) and stage.picker_gradient > 0
    copies = ("filler" in stage.train or any(one.module == "mix" for one in played)) + revealed
    tokens = sum(one.tokens for one in played if one.module == "picker")
    return copies * tokens * sizes.config.hidden * sizes.element


def _scores(sizes: Sizes, filler: Pass, logits: Pass) -> float:
    """A pass of the filler without gradient over copies of the batch: its widest block, or all the logits."""
    walked = filler.tokens * (3 * sizes.config.hidden + 2 * sizes.inner) * sizes.element
    said = logits.tokens * sizes.logits * (sizes.element + SINGLE + sizes.rounded)
    return max(walked, filler.tokens * sizes.config.hidden * sizes.element + said)


def _span(sizes: Sizes, stage: SpanStage, passes: Sequence[Pass]) -> Iterator[Peak]:
    """Of a stage that teaches SpanFusionLM's spans: see ``families/span/rollout.py``."""
    assert isinstance(sizes.config, SpanFusionConfig)
    parts = sizes.config.span
    text, step = [one for one in passes if one.module == "decoder"][:2]
    logits = next(one for one in passes if one.module == "logits")
    body, said = trunk(sizes, text, cached=True), head(sizes, logits)
    # embeddings, to take the last of
    recalled = text.tokens * sizes.config.hidden * sizes.element if text.gradient == "learn" else 0.0
    saved = body + said + recalled + parts.g_max * _step(sizes, stage, text.gradient, passes)
    cache = sizes.matrices["decoder"].layers * text.tokens * 2 * sizes.split * sizes.element  # keys and values
    held = cache if sizes.checkpointing or text.gradient == "none" else 0.0
    # logits of every step live until its losses are known: the encoder's, and the decoder's own where autograd does not
    # keep these very ones
    own = 0 if text.gradient != "none" and not sizes.rounded else 1
    spoken = (logits.tokens + parts.g_max * (1 + own) * step.tokens) * sizes.logits * sizes.element
    yield Peak(body + said, held, fetching=True)
    yield Peak(saved, held + spoken + _teacher(sizes, stage, step, cache))
    yield Peak(body + said + recalled, held + beside_logits(sizes, logits.tokens) if said else 0.0)
    yield Peak(body, held + backward_of_block(sizes, replace(text, gradient="learn")), reducing=True)


def _step(sizes: Sizes, stage: SpanStage, reads: Gradient, passes: Sequence[Pass]) -> float:
    """A refinement step. What no loss hears is kept all the same, as long as the forward pass lasts."""
    step = replace([one for one in passes if one.module == "decoder"][1], gradient=reads)
    encoder = next(one for one in passes if one.module == "encoder")
    figures = step.tokens * sizes.logits * SINGLE
    total = trunk(sizes, step, cached=True) + trunk(sizes, encoder)
    if reads != "none" or encoder.gradient != "none":
        total += figures  # cross entropy
    if reads != "none":  # the decoder's cross entropy, and its entropy; states whose logits are asked for
        total += figures * (3 if stage.span.losses.pred else 2) + 2 * step.tokens * sizes.config.hidden * sizes.element
    return total


def _teacher(sizes: Sizes, stage: SpanStage, step: Pass, cache: float) -> float:
    """Its own steps, of which it keeps the logits, and the last step's keys and values; a copy that follows the model
    slowly has a cache of the texts, too. Entropies take two floats a logit."""
    assert isinstance(sizes.config, SpanFusionConfig)
    if stage.span.losses.latent == 0:
        return 0.0
    spoken = step.tokens * sizes.logits
    whole = cache * step.reach / sizes.config.max_length
    logits = sizes.config.span.g_max * 2 * spoken * sizes.element
    return logits + whole + 2 * spoken * SINGLE + (cache if stage.span.teacher == "ema" else 0.0)
