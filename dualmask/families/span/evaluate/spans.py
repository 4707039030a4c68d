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

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.evaluation import statistics
from dualmask.evaluation.diversity import GROUP, distinct
from dualmask.evaluation.judge import Judge
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.writers import Texts, counted
from dualmask.families.span import spans
from dualmask.families.span.config import SpanStageConfig
from dualmask.families.span.evaluate import gate as span_gate
from dualmask.families.span.evaluate.gate import Gold
from dualmask.families.span.gate_net import CONTINUE
from dualmask.families.span.generate import Gate, Written, write
from dualmask.families.span.losses import schedule_nats
from dualmask.families.span.model import REACH, SpanFusion
from dualmask.families.span.rollout import Step, play
from dualmask.families.span.spans import Spans
from dualmask.inference import autoregressive
from dualmask.inference.loading import Loaded
from dualmask.nn.parallel.vocabulary import cross_entropy
from dualmask.nn.token_losses import FillerOut

LEAST_PROMPT = 8  # tokens
REPEATS = 7
TIMED = 128  # spans, at most


@dataclass(frozen=True)
class Task:
    """Prompts [n], the K ids that really follow each, and of how many texts they are: first one span of each text, then
    the next of each."""

    prompts: Texts
    gold: Texts
    texts: int

    @property
    def width(self) -> int:
        return len(self.gold[0])

    def row(
        self, metric: str, statistic: Callable[[np.ndarray], np.ndarray], columns: Sequence[np.ndarray], method: str,
        **where: object,
    ) -> Row:  # fmt: skip
        """From columns of [n] each; the interval is over texts, as spans of one text are alike."""
        of_texts = np.stack(columns, 1).astype(float).reshape(-1, self.texts, len(columns)).sum(0)
        row = statistics.row(metric, statistic, of_texts, method=method, **where)
        return row | {"n": len(self.gold)}


def make_task(sequences: Sequence[Sequence[int]], *, width: int, cuts: int, limit: int, seed: int) -> Task:
    """``cuts`` spans of ``width`` = K ids of each of at most ``limit`` sequences (without BOS and EOS), spread evenly;
    a whole number of groups of texts. Raises ValueError where there are too few."""
    least = LEAST_PROMPT + width + cuts - 1
    whole = [list(ids) for ids in sequences if len(ids) >= least]
    number = min(limit, len(whole)) // GROUP * GROUP
    if number < 2 * GROUP:
        needed = f"{2 * GROUP} texts of {least} tokens are needed ({LEAST_PROMPT} of a prompt, the span, other places)"
        raise ValueError(f"--span {width}, --limit: {needed}, there are {min(limit, len(whole))}")
    rows = [whole[index * len(whole) // number] for index in range(number)]
    draw = np.random.default_rng(seed)
    places = [draw.choice(np.arange(LEAST_PROMPT, len(ids) - width + 1), cuts, replace=False) for ids in rows]
    cut = [(ids, int(place[turn])) for turn in range(cuts) for ids, place in zip(rows, places, strict=True)]
    return Task([ids[:at] for ids, at in cut], [ids[at : at + width] for ids, at in cut], number)


@dataclass(frozen=True)
class Arm:
    method: str
    write: Callable[[Texts], list[Written]]


def most_steps(model: SpanFusion, width: int) -> int:
    """N: behind so many steps of M = ⌈K / g_max⌉ places each, all ``width`` = K are written."""
    return -(-width // spans.places_a_step(width, model.span.g_max))


def arms(model: SpanFusion, width: int) -> list[Arm]:
    """All ways to write a span of ``width`` tokens."""

    def gated(gate: Gate) -> Callable[[Texts], list[Written]]:
        return lambda prompts: write(
            model, prompts, tokens=width, span=width, gate=gate, least=width, sampling=[GREEDY] * len(prompts)
        )

    named: tuple[Gate, ...] = ("learned", "fast", "accurate")
    found = [Arm(str(gate), gated(gate)) for gate in named]
    found += [Arm(f"fixed:{number}", gated(number)) for number in range(1, most_steps(model, width) + 1)]
    return [*found, token_by_token(model, "autoregressive", width)]


def token_by_token(model: SpanFusion, method: str, tokens: int) -> Arm:
    """The model's own decoder, used autoregressively."""

    def arm(prompts: Texts) -> list[Written]:
        sampling = [GREEDY] * len(prompts)
        written = autoregressive.write(model, prompts, tokens=tokens, least=tokens, sampling=sampling)
        return [Written(ids, ()) for ids in written]

    return Arm(method, arm)


@dataclass(frozen=True)
class Sample:
    """What one arm wrote, and what it took."""

    texts: Texts
    steps: np.ndarray  # [n] decoder passes that wrote tokens; the first reads the prompt, too
    passes: float  # of the decoder, a span
    blocks: float  # transformer blocks run, of decoder and encoder, a span


def draw(model: SpanFusion, arm: Arm, task: Task, at_once: int) -> Sample:
    with counted(model) as passes:
        out = [one for part in _parts(len(task.prompts), at_once) for one in arm.write(task.prompts[part])]
    steps = np.array([sum(trace.steps for trace in one.spans) or task.width for one in out])
    return Sample([one.ids for one in out], steps, passes.writing / len(out), passes.blocks / len(out))


def pace(
    contestants: Sequence[Arm], prompts: Texts, *, repeats: int, at_once: int, progress: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds a span in each repeat, by method; the arms take turns."""
    seconds: dict[str, list[float]] = {arm.method: [] for arm in contestants}
    for _ in range(repeats):
        for arm in contestants:
            began = time.perf_counter()
            for part in _parts(len(prompts), at_once):
                arm.write(prompts[part])
            seconds[arm.method].append((time.perf_counter() - began) / len(prompts))
        progress()
    return seconds


@torch.inference_mode()
def read_gold(model: SpanFusion, task: Task, at_once: int = 64) -> Gold:
    """What the true spans cost under every number of steps, and under the decoder alone."""
    parts = [
        _read_gold(model, *_texts(model, task.prompts[part], task.gold[part]))
        for part in _parts(len(task.prompts), at_once)
    ]
    return Gold(task.width, *(torch.cat(figure).double().cpu().numpy() for figure in zip(*parts, strict=True)))


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
def own_nats(model: SpanFusion, prompts: Texts, written: Texts, at_once: int = 64) -> np.ndarray:
    """[n] −log p of what was written behind each prompt, by the model's own decoder, token by token."""
    found = []
    for part in _parts(len(prompts), at_once):
        batch, cut = _texts(model, prompts[part], written[part])
        found.append(_decoder_nats(model(batch)[0], batch, cut))
    return torch.cat(found).double().cpu().numpy()


def evaluate(
    loaded: Loaded[SpanFusion],
    task: Task,
    judge: Judge | None = None,
    *,
    repeats: int = REPEATS,
    at_once: int = 64,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """All rows. ``judge``: another model's opinion of texts, and of how hard a span is."""
    model, contestants = loaded.model, arms(loaded.model, task.width)
    samples = {arm.method: draw(model, arm, task, at_once) for arm in contestants}  # this warms up, too
    timed = [*contestants, token_by_token(model, "prompt", 1)]
    seconds = pace(timed, task.prompts[:TIMED], repeats=repeats, at_once=at_once, progress=progress)
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


def agreement(task: Task, texts: Texts, method: str) -> list[Row]:
    """With the true span: slot by slot, and from the first token on."""
    right = np.array(texts) == np.array(task.gold)
    places = np.full(len(right), task.width)
    figures = {"span_accuracy": right.sum(1), "prefix": right.cumprod(1).sum(1)}
    return [task.row(name, statistics.ratio, [hits, places], method) for name, hits in figures.items()]


def _quality(model: SpanFusion, task: Task, texts: Texts, method: str, judge: Judge | None) -> list[Row]:
    """Perplexities, and beside them variety, as perplexity alone is fooled by repetition."""
    tokens = np.full(len(texts), task.width)
    rows = [task.row("own_perplexity", perplexity, [own_nats(model, task.prompts, texts), tokens], method)]
    if judge:
        rows.append(task.row("outside_perplexity", perplexity, list(judge.nats(task.prompts, texts).T), method))
    groups = [distinct(texts[start : start + GROUP], 2) for start in range(0, len(texts), GROUP)]
    varied = statistics.row("distinct2", statistics.ratio, np.array(groups), method=method)
    return [*rows, varied | {"n": len(texts)}]


def _costs(task: Task, sample: Sample, method: str) -> list[Row]:
    """Steps and passes."""
    one = np.ones(len(sample.texts))
    rows = [
        task.row("steps", statistics.ratio, [sample.steps, one], method),
        task.row("tokens_per_pass", statistics.ratio, [one * task.width, sample.steps], method),
    ]
    for name, value in (("decoder_passes", sample.passes), ("block_passes", sample.blocks)):
        rows.append({"metric": name, "value": value, "lo": value, "hi": value, "n": len(one), "method": method})
    return rows


def pace_rows(seconds: dict[str, list[float]], **where: int) -> list[Row]:
    """Seconds a span, and how often faster than the autoregressive arm of the same repeat: medians, least and greatest.
    n: repeats."""
    rows = []
    for method, ours in seconds.items():
        faster = [theirs / mine for theirs, mine in zip(seconds["autoregressive"], ours, strict=True)]
        for name, found in (("seconds", ours), ("speedup_vs_ar", faster)):
            figures = {"value": median(found), "lo": min(found), "hi": max(found), "n": len(found)}
            rows.append({"metric": name, **figures, "method": method, **where})
    return rows


def perplexity(sums: np.ndarray) -> np.ndarray:
    return np.exp(statistics.ratio(sums))


def _parts(number: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, number, at_once))


def _texts(model: SpanFusion, prompts: Texts, written: Texts) -> tuple[Batch, Spans]:
    """Prompts with what follows them, padded on the right, and where that begins."""
    device = model.table.weight.device
    rows = [[BOS_ID, *prompt, *ids, EOS_ID] for prompt, ids in zip(prompts, written, strict=True)]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows], device=device)
    length = torch.tensor([len(row) for row in rows], device=device)
    prompt_length = torch.tensor([1 + len(prompt) for prompt in prompts], device=device)
    return Batch(tokens, length, torch.zeros_like(length)), Spans(prompt_length, torch.tensor(written, device=device))


def _decoder_nats(ar: FillerOut, batch: Batch, cut: Spans) -> Tensor:
    """[B] summed over the span; the loss at a place is that of the next one's token."""
    loss = torch.zeros(batch.tokens.numel(), device=ar.loss.device).scatter(0, ar.slot, ar.loss.float())
    return loss.view_as(batch.tokens).gather(1, cut.position.long() - 1).sum(1)


def _schedule(steps: Sequence[Step], cut: Spans, logits: Sequence[Tensor]) -> Tensor:
    """[B, N] nats of the true span if the text stops behind each step, by the ``logits`` of each."""
    nats = torch.stack([cross_entropy(each, cut.target.flatten()).view_as(cut.target) for each in logits], 1)
    open_ = torch.stack([step.before.open for step in steps], 1)
    return schedule_nats(nats, open_, torch.stack([step.pick for step in steps], 1)).sum(-1)
