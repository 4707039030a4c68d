"""Who else corrects texts: the filler alone, with a threshold; and the filler when it is told what is wrong."""

# B batch, T tokens, N texts, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.lexicon import read_lexicon
from dualmask.families.edit.evaluate.baselines import likelihood_ratio
from dualmask.families.edit.evaluate.corrupted import rows
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.round import play_round
from dualmask.inference.loading import Loaded
from dualmask.ops import gaps
from dualmask.ops.alignment import align, holes

LIMITS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
# (over the likeliest token's probability?, limit)
RULES = [(relative, limit) for relative in (False, True) for limit in LIMITS]
FOLDS = 2

Texts = list[list[int]]
Score = Callable[[int, np.ndarray], float]  # (candidate, texts) → the higher the better


class FillerThreshold:
    """Replaces every token whose probability, by the filler, is below its text's limit: one mask each, one pass."""

    def __init__(self, loaded: Loaded) -> None:
        self._model, self._writable = loaded.model, _writable(loaded)

    def __call__(self, batches: Sequence[Batch], scores: Sequence[MaskedLMScores], rule: np.ndarray) -> Texts:
        """The texts of the batches, corrected. scores: ``baselines.filler_scores`` of each batch; rule [N]: index into
        RULES."""
        table = torch.tensor(RULES)[torch.from_numpy(rule)].split([len(batch.length) for batch in batches])
        return rows([self._corrected(*each) for each in zip(batches, scores, table, strict=True)])

    @torch.inference_mode()
    def _corrected(self, batch: Batch, scores: MaskedLMScores, rule: Tensor) -> Batch:
        relative, limit = rule.to(batch.tokens.device)[:, :, None].unbind(1)
        prob = torch.where(relative > 0, likelihood_ratio(batch, scores), scores.prob)
        doubted = (prob < limit) & batch.deletable
        count = gaps.gap_counts(batch.present & ~doubted, doubted)
        return _texts_behind(batch, GivenRules(self._model, doubted, count, self._writable), batch.tokens.shape[1])


class Oracle:
    """Deletes what is wrong and opens what is missing, as the targets say, and lets the filler fill: the most that this
    filler allows. Where a hole needs more masks than one gap takes, the rest stays out."""

    def __init__(self, loaded: Loaded) -> None:
        self._model, self._writable = loaded.model, _writable(loaded)

    def __call__(self, batches: Sequence[Batch], targets: Sequence[Batch]) -> Texts:
        return rows([self._corrected(*pair) for pair in zip(batches, targets, strict=True)])

    @torch.inference_mode()
    def _corrected(self, batch: Batch, target: Batch) -> Batch:
        match = align(batch.tokens, batch.length, target.tokens, target.length)
        keep = (match >= 0) & batch.present
        count = holes(match, keep).count.clamp_max(self._model.config.max_gap_count)
        rules = GivenRules(self._model, batch.present & ~keep, count, self._writable, told=batch.tokens)
        return _texts_behind(batch, rules, target.tokens.shape[1])


def _writable(loaded: Loaded) -> Tensor:
    """[V] bool, on the model's device."""
    return read_lexicon(loaded.tokenizer).writable.to(next(loaded.model.parameters()).device)


def _texts_behind(batch: Batch, rules: GivenRules, width: int) -> Batch:
    """The texts behind the round."""
    result = play_round(batch.tokens, batch.length, rules, width)
    return Batch(result.tokens, result.length, batch.key)


def cross_fitted(candidates: int, texts: int, score: Score) -> np.ndarray:
    """[N] the candidate for each text: the best one on the texts of the other half, so that none is tuned on itself."""
    fold = np.arange(texts) % FOLDS
    chosen = np.zeros(texts, dtype=int)
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number)
        chosen[fold == number] = max(range(candidates), key=lambda candidate: score(candidate, others))
    return chosen
