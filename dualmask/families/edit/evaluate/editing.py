"""`dualmask eval editing`: are wrong tokens found and put right, and is what was right left alone?

Held-out texts are corrupted (``corrupted``), corrected by several methods, and the edits made compared with
those that lead back to the text; the same methods get the clean texts.

auto              the Gate decides, the picker deletes what is wrong, the inserter counts, the filler fills
edit              the same with the Gate always open; gate_off: never; shuffled_gate: where it was open for another text
filler_threshold  ``correctors``: the filler alone. keep: nothing is done
oracle            the filler is told what is wrong and where something is missing: the most that it allows
"""

# N texts

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.lexicon import read_lexicon
from dualmask.evaluation import statistics
from dualmask.evaluation.ranking import auc_row, roc
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.evaluate.baselines import filler_scores, likelihood_ratio
from dualmask.families.edit.evaluate.correctors import RULES, FillerThreshold, Oracle, Texts, cross_fitted
from dualmask.families.edit.evaluate.corrupted import Pairs, make_wrong
from dualmask.families.edit.evaluate.rollouts import Rollout, roll_out
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.text import engine_of
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.model import DualMask
from dualmask.inference.loading import Loaded
from dualmask.ops.alignment import align

ROUNDS = (1, 2, 4)
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a method made of the N wrong and of the N right texts."""

    method: str
    rounds: int
    from_wrong: Texts
    from_right: Texts


@dataclass(frozen=True)
class Scores:
    """Items that are to be told apart. owner: number of the item's text."""

    value: np.ndarray
    wrong: np.ndarray
    owner: np.ndarray


def evaluate(
    loaded: Loaded, right: Sequence[Batch], *, rate: float, kinds: Sequence[str], rounds: Sequence[int] = ROUNDS
) -> tuple[list[Row], dict[str, Curve]]:
    """All rows, and ROC curves by name. right: the texts (``corrupted.right_texts``). Raises ValueError."""
    pairs = make_wrong(right, loaded, rate=rate, kinds=kinds)
    engine = engine_of(loaded, read_lexicon(loaded.tokenizer))
    most = max(rounds)
    wrong, clean = roll_out(engine, pairs.sources, "auto", most), roll_out(engine, pairs.targets, "auto", most)
    wrong_scores, right_scores = _filler_scores(loaded.model, pairs.wrong), _filler_scores(loaded.model, pairs.right)
    simple = FillerThreshold(loaded)
    rule = _tuned(simple, pairs, wrong_scores)
    outcomes = [*_model_outcomes(engine, pairs, wrong, clean, rounds)]
    corrected = simple(pairs.wrong, wrong_scores, rule), simple(pairs.right, right_scores, rule)
    outcomes.append(Outcome("filler_threshold", 1, *corrected))
    outcomes.append(Outcome("oracle", 1, Oracle(loaded)(pairs.wrong, pairs.right), pairs.targets))
    rows = [row for outcome in outcomes for row in outcome_rows(outcome, pairs)]
    rows += gain_rows([outcome for outcome in outcomes if outcome.method == "auto"], pairs)
    for kind in kinds:
        part = make_wrong(right, loaded, rate=rate, kinds=[kind])
        by_method = {
            "auto": [rollout.draft(1) for rollout in roll_out(engine, part.sources, "auto", 1)],
            "filler_threshold": simple(part.wrong, _filler_scores(loaded.model, part.wrong), rule),
        }
        rows += [_recall(texts, part, method=method, rounds=1, kind=kind) for method, texts in by_method.items()]
    scores = {
        "gate_auc": _gate_scores([*wrong_scores, *right_scores], pairs, wrong, clean),
        "wrong_auc": _token_scores(loaded.model, wrong_scores, pairs),
    }
    curves = {}
    for metric, by_method in scores.items():
        for method, score in by_method.items():
            rows.append(auc_row(metric, score.value, score.wrong, score.owner, method=method))
            curves[f"{metric} {method}"] = roc(score.value, score.wrong)
    return rows, curves


def _model_outcomes(
    engine: Engine, pairs: Pairs, wrong: Sequence[Rollout], clean: Sequence[Rollout], rounds: Sequence[int]
) -> Iterator[Outcome]:
    """The Gate as it decides, and as it is told to. No probability is above 1, every one is above 0."""
    number = len(wrong)
    drafts = [*pairs.sources, *pairs.targets]
    always = roll_out(engine, drafts, "auto", max(rounds), gate_threshold=0.0)
    never = roll_out(engine, drafts, "auto", 1, gate_threshold=1.0)
    by_gate = [*wrong, *clean]
    threshold = engine.point.gate_threshold
    dealt = np.random.default_rng(0).permutation([rollout.gate > threshold for rollout in by_gate])
    shuffled = [opened if open_ else closed for open_, opened, closed in zip(dealt, always, never, strict=True)]

    def outcome(method: str, turns: int, rollouts: Sequence[Rollout]) -> Outcome:
        texts = [rollout.draft(turns) for rollout in rollouts]
        return Outcome(method, turns, texts[:number], texts[number:])

    yield Outcome("keep", 0, pairs.sources, pairs.targets)
    for turns in rounds:
        yield outcome("auto", turns, by_gate)
    for turns in rounds:
        yield outcome("edit", turns, always)
    yield outcome("shuffled_gate", 1, shuffled)
    yield outcome("gate_off", 1, never)


def _filler_scores(model: DualMask, batches: Sequence[Batch]) -> list[MaskedLMScores]:
    return [filler_scores(model, batch) for batch in batches]


def _tuned(simple: FillerThreshold, pairs: Pairs, scores: Sequence[MaskedLMScores]) -> np.ndarray:
    """[N] the rule for each text: that with the best F0.5 on the other half of the texts."""
    number = len(pairs.sources)
    counts = [
        _agreements(simple(pairs.wrong, scores, np.full(number, rule)), pairs)[:, :3] for rule in range(len(RULES))
    ]

    def score(rule: int, part: np.ndarray) -> float:
        return float(np.nan_to_num(edits.f05(counts[rule][part].sum(0))))

    return cross_fitted(len(RULES), number, score)


def _agreements(corrected: Texts, pairs: Pairs) -> np.ndarray:
    """[N, 4] see ``edits.agreement``."""
    triples = zip(pairs.sources, corrected, pairs.targets, strict=True)
    return np.array([edits.agreement(*triple) for triple in triples], dtype=float)


def _recall(corrected: Texts, pairs: Pairs, **dimensions: object) -> Row:
    return statistics.row("recall", edits.recall, _agreements(corrected, pairs)[:, :3], **dimensions)


def outcome_rows(outcome: Outcome, pairs: Pairs) -> list[Row]:
    dimensions = {"method": outcome.method, "rounds": outcome.rounds}
    counts = _agreements(outcome.from_wrong, pairs)
    figures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "f05": edits.f05,
        "precision": edits.precision,
        "recall": edits.recall,
    }
    rows = [statistics.row(metric, figure, counts[:, :3], **dimensions) for metric, figure in figures.items()]
    rows.append(statistics.row("detection_f05", edits.f05, counts[:, [3, 1, 2]], **dimensions))
    size = np.array([len(target) for target in pairs.targets])
    results = list(zip(outcome.from_wrong, pairs.targets, strict=True))
    sums = {
        "clean_untouched": [edits.untouched(*pair) for pair in zip(pairs.targets, outcome.from_right, strict=True)],
        "length_error": [abs(len(result) - len(target)) for result, target in results],
        "edit_distance": [Levenshtein.distance(result, target) for result, target in results],
    }
    return rows + [
        statistics.row(metric, statistics.ratio, np.stack([value, size], 1), **dimensions)
        for metric, value in sums.items()
    ]


def gain_rows(outcomes: Sequence[Outcome], pairs: Pairs) -> list[Row]:
    """What further rounds of a method add to the F0.5 of its fewest: both on the same resampled texts."""
    fewest, *others = sorted(outcomes, key=lambda outcome: outcome.rounds)
    before = _agreements(fewest.from_wrong, pairs)[:, :3]

    def gain(sums: np.ndarray) -> np.ndarray:
        return edits.f05(sums[..., 3:]) - edits.f05(sums[..., :3])

    return [
        statistics.row(
            "f05_gain",
            gain,
            np.hstack([before, _agreements(outcome.from_wrong, pairs)[:, :3]]),
            method=outcome.method,
            rounds=outcome.rounds,
            over=fewest.rounds,
        )
        for outcome in others
    ]


def _gate_scores(
    scores: Sequence[MaskedLMScores], pairs: Pairs, wrong: Sequence[Rollout], clean: Sequence[Rollout]
) -> dict[str, Scores]:
    """Whole texts: the Gate's probability, and the filler's mean negative log-likelihood. Texts that only lack tokens
    are left out: nothing of them has to go."""
    mean_nll = [
        torch.where(batch.deletable, -score.prob.clamp_min(1e-9).log(), 0.0).sum(1) / batch.deletable.sum(1)
        for batch, score in zip([*pairs.wrong, *pairs.right], scores, strict=True)
    ]
    number = len(wrong)
    is_wrong, owner = np.arange(2 * number) < number, np.tile(np.arange(number), 2)
    gate = np.array([rollout.gate for rollout in [*wrong, *clean]])
    has_wrong_tokens = [
        ((align(x.tokens, x.length, y.tokens, y.length) < 0) & x.deletable).any(1)
        for x, y in zip(pairs.wrong, pairs.right, strict=True)
    ]
    judged = np.tile(torch.cat(has_wrong_tokens).cpu().numpy(), 2)
    return {
        "gate": Scores(gate[judged], is_wrong[judged], owner[judged]),
        "filler": Scores(torch.cat(mean_nll).cpu().numpy()[judged], is_wrong[judged], owner[judged]),
    }


@torch.inference_mode()
def _token_scores(model: DualMask, scores: Sequence[MaskedLMScores], pairs: Pairs) -> dict[str, Scores]:
    """Tokens of the wrong texts: the picker's logit that they are wrong, the filler's doubt, and how much likelier
    than the token it finds another one."""
    values: dict[str, list[Tensor]] = {"picker": [], "filler": [], "filler_ratio": []}
    wrong, owner = [], []
    first = 0
    for batch, score, target in zip(pairs.wrong, scores, pairs.right, strict=True):
        where = batch.deletable
        draft_scores = model.read(batch, torch.ones(len(batch.length), device=batch.tokens.device))
        values["picker"].append(draft_scores.logits.wrong[where])
        values["filler"].append(-score.prob[where])
        values["filler_ratio"].append(-likelihood_ratio(batch, score)[where])
        wrong.append((align(batch.tokens, batch.length, target.tokens, target.length) < 0)[where])
        owner.append(first + where.nonzero()[:, 0])
        first += len(batch.length)
    return {name: Scores(*map(_joined, (value, wrong, owner))) for name, value in values.items()}


def _joined(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).cpu().numpy()
