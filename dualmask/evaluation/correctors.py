"""Who else corrects texts: the filler alone, with a threshold, without picker, inserter and Gate."""

# B batch, T tokens, N texts, M slots

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dualmask.batch import Batch
from dualmask.evaluation.baselines import FillerScores
from dualmask.evaluation.corrupted import rows
from dualmask.inference.lexicon import read_lexicon
from dualmask.inference.loading import Loaded
from dualmask.parallel.vocabulary import whole_vocabulary
from dualmask.tokenizer import MASK_ID

LIMITS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
# (over the likeliest token's probability?, limit)
RULES = [(relative, limit) for relative in (False, True) for limit in LIMITS]
FOLDS = 2

Texts = list[list[int]]
Score = Callable[[int, np.ndarray], float]  # (candidate, texts) → the higher the better


class FillerThreshold:
    """Replaces every token whose probability, by the filler, is below its text's limit: one mask each, one pass."""

    def __init__(self, loaded: Loaded, scores: FillerScores) -> None:
        self._model = loaded.model
        self._writable = read_lexicon(loaded.tokenizer).writable.to(next(loaded.model.parameters()).device)
        self._scores = scores

    def __call__(self, batches: Sequence[Batch], rule: np.ndarray) -> Texts:
        """The texts of the batches, corrected; rule [N]: index into RULES."""
        table = torch.tensor(RULES)[torch.from_numpy(rule)].split([len(batch.length) for batch in batches])
        return rows([self._corrected(*pair) for pair in zip(batches, table, strict=True)])

    @torch.inference_mode()
    def _corrected(self, batch: Batch, rule: Tensor) -> Batch:
        relative, limit = rule.to(batch.tokens.device)[:, :, None].unbind(1)
        believed = torch.where(relative > 0, self._scores.ratio(batch), self._scores(batch))
        doubted = (believed < limit) & batch.deletable
        masked = torch.where(doubted, MASK_ID, batch.tokens)
        slot = doubted.flatten().nonzero().squeeze(1)
        logits = whole_vocabulary(self._model.fill(masked, batch.length, slot), len(self._writable))
        best = logits.masked_fill(~self._writable, float("-inf")).argmax(-1)
        return Batch(masked.flatten().scatter(0, slot, best).view_as(masked), batch.length, batch.key)


def cross_fitted(candidates: int, texts: int, score: Score) -> np.ndarray:
    """[N] the candidate for each text: the best one on the texts of the other half, so that none is tuned on itself."""
    fold = np.arange(texts) % FOLDS
    chosen = np.zeros(texts, dtype=int)
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number)
        chosen[fold == number] = max(range(candidates), key=lambda candidate: score(candidate, others))
    return chosen
