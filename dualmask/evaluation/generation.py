"""Continuing held-out texts: how well by an outside judge's measure, how varied, how fast; and at equal variety.

Every method writes equally many tokens behind the same prompts. A lower temperature makes any method look better to a
judge and write less varied texts, so methods are compared where they are as varied as the held-out texts themselves.
"""

# N texts, G groups of texts that are compared with each other, S settings of the temperature

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualmask.core.tokenizer import Tokenizer
from dualmask.evaluation import statistics
from dualmask.evaluation.diversity import GROUP, distinct, repeated, self_bleu
from dualmask.evaluation.judge import Judge
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.writers import Texts, Writer, counted

TEXTS_AT_ONCE = 64
MATCHED = "matched"  # instead of a temperature: interpolated to the variety of the held-out texts


@dataclass(frozen=True)
class Task:
    """Prompts [N], what really follows each, and how many tokens that is; all texts are equally long."""

    prompts: Texts
    held_out: Texts

    @property
    def tokens(self) -> int:
        return len(self.held_out[0])

    @property
    def dimensions(self) -> dict[str, Any]:
        return {"prompt": len(self.prompts[0])}


def make_task(sequences: Sequence[Sequence[int]], prompt: int, length: int, limit: int) -> Task:
    """The first ``prompt`` of ``length`` ids, and the rest of them, of at most ``limit`` sequences (without BOS and
    EOS), spread evenly. A whole number of groups. Raises ValueError where there are too few."""
    if not 0 <= prompt < length:
        raise ValueError(
            f"--prompts {prompt}: give a number of tokens from 0 to {length - 1}, to be continued to {length}"
        )
    whole = [list(ids[:length]) for ids in sequences if len(ids) >= length]
    number = min(limit, len(whole)) // GROUP * GROUP
    if number < 2 * GROUP:
        raise ValueError(f"--data, --limit: {2 * GROUP} texts of {length} tokens are needed, there are {len(whole)}")
    rows = [whole[index * len(whole) // number] for index in range(number)]
    return Task([row[:prompt] for row in rows], [row[prompt:] for row in rows])


@dataclass(frozen=True)
class Sample:
    """What one writer wrote at one temperature, and what it took."""

    texts: Texts
    seconds: float = 0.0
    passes: float = 0.0  # a text, of the network that writes
    blocks: float = 0.0  # a text, of all networks


def draw(writer: Writer, task: Task, temperature: float, seed: int) -> Sample:
    texts: list[list[int]] = []
    began = time.perf_counter()
    with counted(writer.model) as passes:
        for start in range(0, len(task.prompts), TEXTS_AT_ONCE):
            prompts = task.prompts[start : start + TEXTS_AT_ONCE]
            seeds = range(seed + start, seed + start + len(prompts))
            texts += writer.write(prompts, task.tokens, temperature, seeds)
    seconds = time.perf_counter() - began
    return Sample(texts, seconds, passes.writing / len(texts), passes.blocks / len(texts))


Sums = dict[str, np.ndarray]  # by figure: [G, 2] of which the ratio is taken


def measure(texts: Texts, task: Task, tokenizer: Tokenizer, judge: Judge | None) -> Sums:
    """Per group of texts, so that intervals can be drawn over groups."""

    def over_groups(figure: Callable[[Texts], tuple[float, float]]) -> np.ndarray:
        return np.array([figure(texts[start : start + GROUP]) for start in range(0, len(texts), GROUP)], float)

    def short(group: Texts) -> tuple[float, float]:
        return sum(abs(len(text) - task.tokens) for text in group), task.tokens * len(group)

    def repeats(group: Texts) -> tuple[float, float]:
        each = [repeated(text) for text in group]
        return sum(again for again, _ in each), sum(number for _, number in each)

    sums = {
        "distinct1": over_groups(lambda group: distinct(group, 1)),
        "distinct2": over_groups(lambda group: distinct(group, 2)),
        "self_bleu": over_groups(lambda group: (sum(self_bleu([tokenizer.decode(t) for t in group])), len(group))),
        "repeated": over_groups(repeats),
        "length_error": over_groups(short),
    }
    if judge is not None:
        sums["perplexity"] = judge.nats(task.prompts, texts).reshape(-1, GROUP, 2).sum(1)
    return sums


def perplexity(sums: np.ndarray) -> np.ndarray:
    return np.exp(statistics.ratio(sums))


STATISTIC = {"perplexity": perplexity}  # of the others: the ratio


def rows_of(sums: Sums, **dimensions: Any) -> list[Row]:
    """A row for every figure."""
    return [_row(name, STATISTIC.get(name, statistics.ratio), columns, **dimensions) for name, columns in sums.items()]


def matched(curve: Sequence[Sums], reference: Sums) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """(statistic, columns [G, 2 + 4 S]) of the perplexity that a writer's temperatures lead to where its distinct-2 is
    that of the reference: log-perplexity on the straight line between the two nearest; NaN beyond the last."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        flat = sums.reshape(-1, sums.shape[-1])
        wanted = statistics.ratio(flat[:, :2])
        table = flat[:, 2:].reshape(len(flat), len(curve), 4)
        variety, nats = statistics.ratio(table[..., :2]), statistics.ratio(table[..., 2:])
        order = variety.argsort(1)
        x, y = np.take_along_axis(variety, order, 1), np.take_along_axis(nats, order, 1)
        at = [np.interp(w, row_x, row_y, np.nan, np.nan) for w, row_x, row_y in zip(wanted, x, y, strict=True)]
        return np.exp(np.array(at)).reshape(sums.shape[:-1])

    pairs = [reference["distinct2"], *(sums[name] for sums in curve for name in ("distinct2", "perplexity"))]
    return statistic, np.concatenate(pairs, axis=1)


def matched_row(curve: Sequence[Sums], reference: Sums, **dimensions: Any) -> Row | None:
    """The `perplexity` row at the reference's variety; None where no temperature comes that far."""
    statistic, columns = matched(curve, reference)
    if np.isnan(statistic(columns.sum(0))):
        return None
    return _row("perplexity", statistic, columns, temperature=MATCHED, **dimensions)


def evaluate(
    writers: Sequence[Writer],
    task: Task,
    temperatures: Sequence[float],
    tokenizer: Tokenizer,
    judge: Judge | None = None,
    *,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """All rows of one task. The temperatures are gone through one by one, and within each the writers, so that their
    times are taken side by side."""
    samples: dict[str, list[Sample]] = {writer.name: [] for writer in writers}
    for number, temperature in enumerate(temperatures):
        for writer in writers:
            samples[writer.name].append(draw(writer, task, temperature, seed + number * len(task.prompts)))
            progress()
    reference = measure(task.held_out, task, tokenizer, judge)
    rows = rows_of(reference, method="reference", **task.dimensions)
    for writer in writers:
        where = {"method": writer.method, **writer.settings, **task.dimensions}
        curve = [measure(sample.texts, task, tokenizer, judge) for sample in samples[writer.name]]
        for temperature, sums in zip(temperatures, curve, strict=True):
            rows += rows_of(sums, temperature=temperature, **where)
        at_equal = matched_row(curve, reference, **where) if judge else None
        rows += [at_equal] if at_equal else []
        rows += _costs(samples[writer.name], samples.get("autoregressive"), task, where)
    return rows


def _costs(samples: Sequence[Sample], others: Sequence[Sample] | None, task: Task, where: dict[str, Any]) -> list[Row]:
    """Passes, blocks and time over all temperatures; ``others``: of the autoregressive model, for the speed-up."""
    written = [sum(map(len, sample.texts)) for sample in samples]
    seconds = [sample.seconds for sample in samples]
    ones = np.ones(len(samples))
    columns = {
        "passes": np.stack([[sample.passes for sample in samples], ones], 1),
        "block_passes": np.stack([[sample.blocks for sample in samples], ones], 1),
        "tokens_per_second": np.stack([written, seconds], 1),
    }
    if others:
        pace = [sample.seconds / sum(map(len, sample.texts)) for sample in others]
        columns["speedup_vs_ar"] = np.stack([np.array(pace) * written, seconds], 1)
    rows = [statistics.row(name, statistics.ratio, column, **where) for name, column in columns.items()]
    return [row | {"n": len(task.prompts) * len(samples)} for row in rows]


def _row(metric: str, statistic: Callable[[np.ndarray], np.ndarray], columns: np.ndarray, **dimensions: Any) -> Row:
    """With n in texts: the interval is over groups of them."""
    return statistics.row(metric, statistic, columns, **dimensions) | {"n": len(columns) * GROUP}
