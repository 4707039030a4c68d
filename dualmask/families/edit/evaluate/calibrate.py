"""Chooses a model's thresholds on held-out texts: those with the best F0.5 of edits among those that leave right texts
alone (``infer/operating_point.py``)."""

# N texts

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dualmask.config.corruption import NATURAL
from dualmask.core.lexicon import read_lexicon
from dualmask.core.words import WordList
from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.evaluate.corrupted import TOKEN_KINDS, Pairs, make_wrong, right_texts
from dualmask.families.edit.evaluate.search import read_once, search
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.operating_point import Decision, Measured, OperatingPoint
from dualmask.families.edit.infer.request import Request
from dualmask.families.edit.infer.text import engine_of
from dualmask.inference.loading import Loaded

RATE = 0.1  # share of the tokens that is wrong
KINDS = (*TOKEN_KINDS, "confuse")  # what happens to tokens, and what people write
HALF_NATURAL = (*KINDS, *(len(KINDS) * (NATURAL,)))  # of models that have learnt from errors of words
LEAST_UNTOUCHED = 0.998  # share of the tokens of right texts that stay


def calibrate(
    loaded: Loaded,
    lines: list[str],
    *,
    known: WordList | None = None,
    kinds: Sequence[str] = KINDS,
    limit: int = 192,
) -> Decision:
    """From texts that the model has not seen, made wrong by ``kinds``. ``known``: the words that its edits may write;
    None: those of its folder. Raises ValueError if the texts are too few to choose by."""
    right = right_texts(lines, loaded, limit=limit, typos=True)
    if sum(len(batch.length) for batch in right) < 8:
        raise ValueError("too few held-out texts to choose thresholds by: at least 8 are needed")
    pairs = make_wrong(right, loaded, rate=RATE, kinds=kinds)
    engine = engine_of(loaded, read_lexicon(loaded.tokenizer), point=OperatingPoint(), known=known)
    read_once(engine)
    tried = search(lambda point: measure(engine, pairs, point), _worth).values()
    return Decision(max(tried, key=_worth).point, tuple(frontier(tried)))


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
