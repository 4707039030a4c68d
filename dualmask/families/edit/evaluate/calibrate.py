"""Chooses a model's thresholds on held-out texts: those with the best F0.5 of edits among those that leave right texts
alone (``infer/operating_point.py``)."""

# N texts

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from dualmask.core.lexicon import read_lexicon
from dualmask.core.words import WordList
from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.evaluate.corrupted import TOKEN_KINDS, Pairs, make_wrong, right_texts
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.operating_point import Decision, Measured, OperatingPoint
from dualmask.families.edit.infer.request import Request
from dualmask.families.edit.infer.text import engine_of
from dualmask.families.edit.infer.windows import WindowedModel, WindowedScores
from dualmask.inference.loading import Loaded

RATE = 0.1  # share of the tokens that is wrong
KINDS = (*TOKEN_KINDS, "confuse")  # what happens to tokens, and what people write
LEAST_UNTOUCHED = 0.998  # share of the tokens of right texts that stay

# thresholds and the values that are tried in turn, each with the best of the others
GRID: Sequence[tuple[str, Sequence[float]]] = (
    ("fill_threshold", (0.0, 0.2, 0.4, 0.6, 0.8)),
    ("edit_threshold", (0.1, 0.2, 0.35, 0.65, 0.8)),
    ("insert_threshold", (0.35, 0.65, 0.8, 0.9)),
    ("preference", (-1.0, 0.0, 1.0)),
    ("gate_threshold", (0.1, 0.3)),
    ("fill_threshold", (0.3, 0.5, 0.7)),
    ("edit_threshold", (0.05, 0.15, 0.25, 0.5, 0.75)),
)


def calibrate(loaded: Loaded, lines: list[str], *, known: WordList | None = None, limit: int = 192) -> Decision:
    """From texts that the model has not seen. ``known``: the words that its edits may write; None: those of its folder.
    Raises ValueError if the texts are too few to choose by."""
    right = right_texts(lines, loaded, limit=limit, typos=True)
    if sum(len(batch.length) for batch in right) < 8:
        raise ValueError("too few held-out texts to choose thresholds by: at least 8 are needed")
    pairs = make_wrong(right, loaded, rate=RATE, kinds=KINDS)
    engine = engine_of(loaded, read_lexicon(loaded.tokenizer), point=OperatingPoint(), known=known)
    engine.model = _ReadOnce(engine.model)
    best = measure(engine, pairs, OperatingPoint())
    tried = {best.point: best}
    for name, values in GRID:
        for value in values:
            point = replace(best.point, **{name: value})
            if point not in tried:
                tried[point] = measure(engine, pairs, point)
        best = max(tried.values(), key=_worth)
    return Decision(best.point, tuple(frontier(tried.values())))


class _ReadOnce(WindowedModel):
    """Remembers what the model said of drafts: no threshold changes that."""

    def __init__(self, model: WindowedModel) -> None:
        super().__init__(model.model, model.lexicon)
        self._said: dict[bytes, WindowedScores] = {}

    def read(self, *planes: Tensor) -> WindowedScores:
        drafts = b"".join(plane.cpu().numpy().tobytes() for plane in planes)
        if drafts not in self._said:
            self._said[drafts] = super().read(*planes)
        return self._said[drafts]


def measure(engine: Engine, pairs: Pairs, point: OperatingPoint) -> Measured:
    """One round of `auto` on the wrong and on the right texts."""
    sources, targets = pairs.sources, pairs.targets
    requests = [Request(ids, "auto").at(point) for ids in [*sources, *targets]]
    results = [result.ids for result in engine.run(requests)]
    triples = zip(sources, results[: len(sources)], targets, strict=True)
    counts = np.array([edits.agreement(*triple)[:3] for triple in triples], dtype=float).sum(0)
    stays = sum(edits.untouched(*pair) for pair in zip(targets, results[len(sources) :], strict=True))
    return Measured(
        point=point,
        precision=float(edits.precision(counts)),
        recall=float(edits.recall(counts)),
        f05=float(edits.f05(counts)),
        clean_untouched=stays / sum(map(len, targets)),
    )


def frontier(measured: Iterable[Measured]) -> list[Measured]:
    """Those that no other one beats in precision and recall, the most precise first."""
    best: list[Measured] = []
    for each in sorted(measured, key=lambda each: (-each.precision, -each.recall)):
        if not best or each.recall > best[-1].recall:
            best.append(each)
    return best


def _worth(measured: Measured) -> tuple[float, float]:
    """Points that change right texts too often are compared by how often, and lose against the others."""
    return min(measured.clean_untouched, LEAST_UNTOUCHED), measured.f05
