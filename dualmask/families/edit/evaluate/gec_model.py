"""The model in the suite `gec`: its corrections, at its own thresholds and at others, its latency and its size."""

# N sentences

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from dualmask.core.lexicon import read_lexicon
from dualmask.evaluation import statistics
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.evaluate.correctors import FOLDS
from dualmask.families.edit.evaluate.gec import Sentence, agreement
from dualmask.families.edit.evaluate.search import read_once, search
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import Writer, engine_of
from dualmask.inference.folder import WEIGHTS
from dualmask.inference.loading import Loaded

CHARACTERS = 60  # of the texts whose correction is timed
TIMED = 31
FITTED = 192  # sentences of a half, by which thresholds for the other one are chosen


def tuned(loaded: Loaded, sentences: Sequence[Sentence], rounds: int) -> tuple[list[str], list[OperatingPoint]]:
    """What `auto` makes of the sentences, each half at the point that is best on the other one; and those points."""
    fitting, writing = Writer(loaded), Writer(loaded)
    fitting.engine = engine_of(loaded, read_lexicon(loaded.tokenizer), point=OperatingPoint())
    read_once(fitting.engine)
    texts = [sentence.text for sentence in sentences]
    fold = np.arange(len(sentences)) % FOLDS
    output = list(texts)
    points = []
    for number in range(FOLDS):
        seen, mine = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        spread = [seen[number * len(seen) // FITTED] for number in range(FITTED)] if len(seen) > FITTED else seen
        point = _best(fitting, [sentences[place] for place in spread])
        corrected = run(writing, [texts[place] for place in mine], rounds, point)
        for place, text in zip(mine, corrected, strict=True):
            output[place] = text
        points.append(point)
    return output, points


def run(writer: Writer, texts: Sequence[str], rounds: int, point: OperatingPoint | None = None) -> list[str]:
    """`auto` at a point; None: at that of the model."""
    thresholds = {} if point is None else {name: value for name, value in vars(point).items() if value is not None}
    options = {"rounds": rounds} | thresholds
    requests = [TextRequest(text, "auto", marks_apart=True, options=options) for text in texts]
    return [result.output for result in writer.run(requests)]


def _best(writer: Writer, sentences: Sequence[Sentence]) -> OperatingPoint:
    """That with the best F0.5 of words after one round; of equal ones that with the fewest edits."""

    def measure(point: OperatingPoint) -> tuple[float, float]:
        outputs = run(writer, [sentence.text for sentence in sentences], 1, point)
        counts = np.array([agreement(*pair) for pair in zip(sentences, outputs, strict=True)], dtype=float)
        sums = counts.sum(0)
        return float(np.nan_to_num(edits.f05(sums))), -float(sums[1])

    tried = search(measure, lambda score: score)
    return max(tried, key=tried.__getitem__)


def cost_rows(loaded: Loaded, writer: Writer, texts: Sequence[str], rounds: int) -> list[Row]:
    """seconds: median over texts of about CHARACTERS characters, one at a time, on one core where the model is on a
    CPU; bytes: of the weights as a file."""
    assert loaded.folder is not None
    near = sorted(texts, key=lambda text: abs(len(text) - CHARACTERS))[:TIMED]
    seconds = []
    with _one_core():
        run(writer, near[:2], rounds)
        for text in near:
            begun = time.perf_counter()
            run(writer, [text], rounds)
            seconds.append(time.perf_counter() - begun)
    low, high = np.quantile(_resampled_medians(seconds), [0.025, 0.975]).tolist()
    timed = {"metric": "seconds", "value": float(np.median(seconds)), "lo": low, "hi": high, "n": len(near)}
    size = (loaded.folder / WEIGHTS).stat().st_size
    return [
        timed | {"characters": CHARACTERS},
        statistics.row("bytes", statistics.ratio, np.array([[float(size), 1.0]])),
    ]


def _resampled_medians(values: Sequence[float]) -> np.ndarray:
    drawn = np.random.default_rng(0).choice(values, size=(statistics.RESAMPLES, len(values)))
    return np.asarray(np.median(drawn, axis=1))


@contextmanager
def _one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
