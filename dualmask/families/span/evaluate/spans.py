"""`dualmask eval span`: spans of held-out texts, written by SpanFusionLM and by its own decoder one token at a time.

Prompts are cut from each text at several places; gold is the K tokens that really follow. All arms write greedily, and
none may end the text. Methods of the rows:

learned, fast, accurate   the gate as it was taught; one step; as many as write anything, g_max at most
fixed:n                   n steps for every span
autoregressive            the model's own decoder, one token a pass, keys and values kept
reference                 the held-out text itself
prompt                    one token autoregressively: the time to read the prompt, which every arm spends
shuffled                  control: the learned gate's numbers of steps, dealt to other spans

``span_accuracy`` compares slot by slot, which flatters parallel writing: each slot may be the likeliest alone while the
span says nothing. ``prefix`` counts only what is right from the first token on; ``gold_nll`` is the honest likelihood:
the true tokens are written at the places that the model picks, and each one's loss is that of the step that wrote it.
``pred_nll``: the same by the decoder's own [PRED] logits, before the encoder has refined them.
"""

# n spans, K places of a span, N most steps that write anything, T tokens

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.evaluation import continuation, statistics
from dualmask.evaluation.continuation import (
    SPEED_BASELINE,
    TEXTS_AT_ONCE,
    Sample,
    Task,
    draw,
    group_row,
    over_groups,
    parts,
    take_turns,
    whole_groups,
)
from dualmask.evaluation.diversity import GROUP, distinct
from dualmask.evaluation.judge import Judge
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.writers import Texts, Writer
from dualmask.families.span import spans
from dualmask.families.span.config import SpanStageConfig
from dualmask.families.span.evaluate import gate as span_gate
from dualmask.families.span.evaluate.gate import Gold
from dualmask.families.span.evaluate.writers import most_steps, own_decoder, writers
from dualmask.families.span.gate_net import CONTINUE
from dualmask.families.span.losses import schedule_nats
from dualmask.families.span.model import REACH, SpanFusion
from dualmask.families.span.rollout import Step, play
from dualmask.families.span.spans import Spans
from dualmask.inference.loading import Loaded
from dualmask.nn.parallel.vocabulary import cross_entropy
from dualmask.nn.token_losses import ScoredSlots

LEAST_PROMPT = 8  # tokens
REPEATS = 7
TIMED = 128  # spans, at most


def make_task(sequences: Sequence[Sequence[int]], *, width: int, cuts: int, limit: int, seed: int) -> Task:
    """``cuts`` spans of ``width`` = K ids of each of at most ``limit`` sequences (without BOS and EOS), spread evenly;
    a whole number of groups of texts. Raises ValueError where there are too few."""
    least = LEAST_PROMPT + width + cuts - 1
    needed = f"{2 * GROUP} texts of {least} tokens are needed ({LEAST_PROMPT} of a prompt, the span, other places)"
    long_enough = [list(ids) for ids in sequences if len(ids) >= least]
    texts = whole_groups(long_enough, limit, f"--span {width}, --limit: {needed}")
    random = np.random.default_rng(seed)
    places = [random.choice(np.arange(LEAST_PROMPT, len(ids) - width + 1), cuts, replace=False) for ids in texts]
    cut = [(ids, int(place[turn])) for turn in range(cuts) for ids, place in zip(texts, places, strict=True)]
    return Task([ids[:at] for ids, at in cut], [ids[at : at + width] for ids, at in cut], len(texts))


@torch.inference_mode()
def read_gold(model: SpanFusion, task: Task, at_once: int = TEXTS_AT_ONCE) -> Gold:
    """What the true spans cost under every number of steps, and under the decoder alone."""
    figures = [
        _read_gold(model, *_texts(model, task.prompts[part], task.gold[part]))
        for part in parts(len(task.prompts), at_once)
    ]
    return Gold(task.width, *(torch.cat(figure).double().cpu().numpy() for figure in zip(*figures, strict=True)))


def _read_gold(model: SpanFusion, batch: Batch, cut: Spans) -> tuple[Tensor, ...]:
    """The fields of Gold behind its width."""
    ar, prefix = model(batch)
    behind = prefix.up_to(cut.prompt_length, REACH)
    steps = play(model, behind, cut.position, lambda look, turn: cut.target, SpanStageConfig())
    steps = steps[: most_steps(model, cut.target.shape[1])]
    go_on = torch.stack([step.gate_logits.argmax(-1) == CONTINUE for step in steps], 1).float()
    taken = spans.expected_steps(spans.stop_weights(go_on))
    refined = _schedule(steps, cut, [step.look.logits for step in steps])
    proposed = _schedule(steps, cut, [step.look.pred_logits for step in steps])
    return _decoder_nats(ar, batch, cut), refined, proposed, steps[0].look.mean_entropy, taken


@torch.inference_mode()
def own_nats(model: SpanFusion, prompts: Texts, written: Texts, at_once: int = TEXTS_AT_ONCE) -> np.ndarray:
    """[n] −log p of what was written behind each prompt, by the model's own decoder, token by token."""
    nats = []
    for part in parts(len(prompts), at_once):
        batch, cut = _texts(model, prompts[part], written[part])
        nats.append(_decoder_nats(model(batch)[0], batch, cut))
    return torch.cat(nats).double().cpu().numpy()


def evaluate(
    loaded: Loaded[SpanFusion],
    task: Task,
    judge: Judge | None = None,
    *,
    repeats: int = REPEATS,
    at_once: int = TEXTS_AT_ONCE,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """All rows. ``judge``: another model's opinion of texts, and of how hard a span is."""
    model, contestants = loaded.model, writers(loaded.model, task.width)
    samples = {writer.method: draw(writer, task, at_once=at_once) for writer in contestants}  # this warms up, too
    seconds = _pace(contestants, own_decoder(model), task, repeats=repeats, at_once=at_once, progress=progress)
    gold = read_gold(model, task)
    rows = []
    for method, sample in samples.items():
        rows += agreement(task, sample.texts, method)
        rows += _quality(model, task, sample.texts, method, judge)
        rows += _costs(task, sample, method)
    rows += _quality(model, task, task.gold, "reference", judge)
    rows += pace_rows(seconds, spans=min(TIMED, len(task.prompts)), at_once=at_once)
    difficulty = judge.nats(task.prompts, task.gold)[:, 0] if judge else gold.autoregressive
    rows += span_gate.likelihood_rows(gold, task.row)
    rows += span_gate.difficulty_rows(samples["learned"].steps, difficulty, task.row)
    return rows + span_gate.calibration_rows(gold, samples["learned"].steps)


def _pace(
    contestants: Sequence[Writer], decoder: Writer, task: Task, *, repeats: int, at_once: int,
    progress: Callable[[], object],
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds a span in each repeat, by method; ``prompt`` is one token of the decoder alone."""
    prompts = task.prompts[:TIMED]
    write = partial(continuation.write, prompts=prompts, at_once=at_once)
    jobs = {writer.method: partial(write, writer, tokens=task.width) for writer in contestants}
    jobs["prompt"] = partial(write, decoder, tokens=1)
    turns = take_turns(jobs, repeats, progress)
    return {method: [seconds / len(prompts) for seconds in each] for method, each in turns.items()}


def agreement(task: Task, texts: Texts, method: str) -> list[Row]:
    """With the true span: slot by slot, and from the first token on."""
    right = np.array(texts) == np.array(task.gold)
    places = np.full(len(right), task.width)
    figures = {"span_accuracy": right.sum(1), "prefix": right.cumprod(1).sum(1)}
    return [task.row(name, statistics.ratio, [hits, places], method) for name, hits in figures.items()]


def _quality(model: SpanFusion, task: Task, texts: Texts, method: str, judge: Judge | None) -> list[Row]:
    """Perplexities, and beside them variety, as perplexity alone is fooled by repetition."""
    tokens = np.full(len(texts), task.width)
    rows = [task.row("own_perplexity", statistics.exp_ratio, [own_nats(model, task.prompts, texts), tokens], method)]
    if judge:
        outside = list(judge.nats(task.prompts, texts).T)
        rows.append(task.row("outside_perplexity", statistics.exp_ratio, outside, method))
    pairs = over_groups(texts, lambda group: distinct(group, 2))
    return [*rows, group_row("distinct2", statistics.ratio, pairs, method=method)]


def _costs(task: Task, sample: Sample, method: str) -> list[Row]:
    """Steps and passes."""
    one = np.ones(len(sample.steps))
    rows = [
        task.row("steps", statistics.ratio, [sample.steps, one], method),
        task.row("tokens_per_pass", statistics.ratio, [one * task.width, sample.steps], method),
    ]
    for name, value in (("decoder_passes", sample.passes), ("block_passes", sample.blocks)):
        rows.append({"metric": name, "value": value, "lo": value, "hi": value, "n": len(one), "method": method})
    return rows


def pace_rows(seconds: Mapping[str, Sequence[float]], **dimensions: int) -> list[Row]:
    """Seconds a span, and how often faster than the autoregressive decoder of the same repeat: medians, least and
    greatest. n: repeats."""
    rows = []
    for method, own in seconds.items():
        speedup = [baseline / second for baseline, second in zip(seconds[SPEED_BASELINE], own, strict=True)]
        for metric, repeats in (("seconds", own), ("speedup_vs_ar", speedup)):
            figures = {"value": median(repeats), "lo": min(repeats), "hi": max(repeats), "n": len(repeats)}
            rows.append({"metric": metric, **figures, "method": method, **dimensions})
    return rows


def _texts(model: SpanFusion, prompts: Texts, written: Texts) -> tuple[Batch, Spans]:
    """Prompts with what follows them, padded on the right, and where that begins."""
    device = model.table.weight.device
    rows = [[BOS_ID, *prompt, *ids, EOS_ID] for prompt, ids in zip(prompts, written, strict=True)]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows], device=device)
    length = torch.tensor([len(row) for row in rows], device=device)
    prompt_length = torch.tensor([1 + len(prompt) for prompt in prompts], device=device)
    return Batch(tokens, length, torch.zeros_like(length)), Spans(prompt_length, torch.tensor(written, device=device))


def _decoder_nats(ar: ScoredSlots, batch: Batch, cut: Spans) -> Tensor:
    """[B] summed over the span; the loss at a place is that of the next one's token."""
    return ar.losses_by_position(batch.tokens).gather(1, cut.position.long() - 1).sum(1)


def _schedule(steps: Sequence[Step], cut: Spans, logits: Sequence[Tensor]) -> Tensor:
    """[B, N] nats of the true span if the text stops behind each step, by the ``logits`` of each."""
    nats = torch.stack([cross_entropy(each, cut.target.flatten()).view_as(cut.target) for each in logits], 1)
    open_ = torch.stack([step.before.open for step in steps], 1)
    return schedule_nats(nats, open_, torch.stack([step.pick for step in steps], 1)).sum(-1)
