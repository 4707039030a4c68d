"""`dualmask eval generation`: how good texts are by an outside judge's measure, how varied, and how fast they come.

Every method writes equally many tokens behind the same prompts. A lower temperature makes any method look better to a
judge and write less varied texts, so methods are compared where they are as varied as the held-out texts themselves.
"""

# G groups of texts that are compared with each other, S temperatures

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualmask.core.tokenizer import Tokenizer
from dualmask.evaluation import statistics
from dualmask.evaluation.continuation import SPEED_BASELINE, Sample, Task, draw, group_row, over_groups, whole_groups
from dualmask.evaluation.diversity import GROUP, distinct, repeated, self_bleu
from dualmask.evaluation.judge import Judge
from dualmask.evaluation.statistics import Row, Statistic
from dualmask.evaluation.writers import Texts, Writer

MATCHED = "matched"  # instead of a temperature: interpolated to the variety of the held-out texts
STATISTICS = {"perplexity": statistics.exp_ratio}  # of the other figures: the ratio

Sums = dict[str, np.ndarray]  # by figure: [G, 2] of which the statistic is taken


def make_task(sequences: Sequence[Sequence[int]], prompt: int, length: int, limit: int) -> Task:
    """The first ``prompt`` of ``length`` ids, and the rest of them, of at most ``limit`` sequences (without BOS and
    EOS), spread evenly. A whole number of groups. Raises ValueError where there are too few."""
    if not 0 <= prompt < length:
        raise ValueError(
            f"--prompts {prompt}: give a number of tokens from 0 to {length - 1}, to be continued to {length}"
        )
    whole = [list(ids[:length]) for ids in sequences if len(ids) >= length]
    texts = whole_groups(whole, limit, f"--data, --limit: {2 * GROUP} texts of {length} tokens are needed")
    return Task([ids[:prompt] for ids in texts], [ids[prompt:] for ids in texts], len(texts))


def measure(texts: Texts, task: Task, tokenizer: Tokenizer, judge: Judge | None) -> Sums:
    """Per group of texts, so that intervals can be drawn over groups."""

    def length_error(group: Texts) -> tuple[float, float]:
        return sum(abs(len(text) - task.width) for text in group), task.width * len(group)

    def repeats(group: Texts) -> tuple[float, float]:
        counts = [repeated(text) for text in group]
        return sum(again for again, _ in counts), sum(number for _, number in counts)

    figures: dict[str, Callable[[Texts], tuple[float, float]]] = {
        "distinct1": lambda group: distinct(group, 1),
        "distinct2": lambda group: distinct(group, 2),
        "self_bleu": lambda group: (sum(self_bleu([tokenizer.decode(text) for text in group])), len(group)),
        "repeated": repeats,
        "length_error": length_error,
    }
    sums = {name: over_groups(texts, figure) for name, figure in figures.items()}
    if judge is not None:
        sums["perplexity"] = judge.nats(task.prompts, texts).reshape(-1, GROUP, 2).sum(1)
    return sums


def figure_rows(sums: Sums, **dimensions: Any) -> list[Row]:
    """A row for every figure."""
    return [
        group_row(name, STATISTICS.get(name, statistics.ratio), columns, **dimensions) for name, columns in sums.items()
    ]


def matched(curve: Sequence[Sums], reference: Sums) -> tuple[Statistic, np.ndarray]:
    """(statistic, columns [G, 2 + 4 S]) of the perplexity that a writer's temperatures lead to where its distinct-2 is
    that of the reference: log-perplexity on the straight line between the two nearest; NaN beyond the last."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        flat = sums.reshape(-1, sums.shape[-1])
        target = statistics.ratio(flat[:, :2])
        table = flat[:, 2:].reshape(len(flat), len(curve), 4)
        variety, nats = statistics.ratio(table[..., :2]), statistics.ratio(table[..., 2:])
        order = variety.argsort(1)
        x, y = np.take_along_axis(variety, order, 1), np.take_along_axis(nats, order, 1)
        log_perplexity = [
            np.interp(at, row_x, row_y, np.nan, np.nan) for at, row_x, row_y in zip(target, x, y, strict=True)
        ]
        return np.exp(np.array(log_perplexity)).reshape(sums.shape[:-1])

    pairs = [reference["distinct2"], *(sums[name] for sums in curve for name in ("distinct2", "perplexity"))]
    return statistic, np.concatenate(pairs, axis=1)


def matched_row(curve: Sequence[Sums], reference: Sums, **dimensions: Any) -> Row | None:
    """The `perplexity` row at the reference's variety; None where no temperature comes that far."""
    statistic, columns = matched(curve, reference)
    if np.isnan(statistic(columns.sum(0))):
        return None
    return group_row("perplexity", statistic, columns, temperature=MATCHED, **dimensions)


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
            first_seed = seed + number * len(task.prompts)
            samples[writer.name].append(draw(writer, task, temperature=temperature, seed=first_seed))
            progress()
    prompt = {"prompt": len(task.prompts[0])}
    reference = measure(task.gold, task, tokenizer, judge)
    rows = figure_rows(reference, method="reference", **prompt)
    for writer in writers:
        dimensions = {"method": writer.method, **writer.settings, **prompt}
        curve = [measure(sample.texts, task, tokenizer, judge) for sample in samples[writer.name]]
        for temperature, sums in zip(temperatures, curve, strict=True):
            rows += figure_rows(sums, temperature=temperature, **dimensions)
        at_equal_variety = matched_row(curve, reference, **dimensions) if judge else None
        rows += [at_equal_variety] if at_equal_variety else []
        rows += _cost_rows(samples[writer.name], samples.get(SPEED_BASELINE), **dimensions)
    return rows


def _cost_rows(samples: Sequence[Sample], baseline: Sequence[Sample] | None, **dimensions: Any) -> list[Row]:
    """Passes, blocks and time over all temperatures; ``baseline``: the samples whose pace is that of speed-up 1."""
    written = [sample.tokens for sample in samples]
    seconds = [sample.seconds for sample in samples]
    ones = np.ones(len(samples))
    columns = {
        "passes": np.stack([[sample.passes for sample in samples], ones], 1),
        "block_passes": np.stack([[sample.blocks for sample in samples], ones], 1),
        "tokens_per_second": np.stack([written, seconds], 1),
    }
    if baseline:
        pace = [sample.seconds / sample.tokens for sample in baseline]
        columns["speedup_vs_ar"] = np.stack([np.array(pace) * written, seconds], 1)
    rows = [statistics.row(name, statistics.ratio, column, **dimensions) for name, column in columns.items()]
    return [row | {"n": sum(len(sample.written) for sample in samples)} for row in rows]
