"""Who else corrects texts: the filler alone, with a threshold; and the filler when it is told what is wrong."""

# B batch, T tokens, N texts, M slots

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.lexicon import read_lexicon
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.evaluate.baselines import FillerScores
from dualmask.families.edit.evaluate.corrupted import rows
from dualmask.families.edit.model import DualMask
from dualmask.inference.loading import Loaded
from dualmask.nn.parallel.vocabulary import whole_vocabulary
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
        return _filled(self._model, self._writable, masked, batch.length, doubted, batch.key)


class Oracle:
    """Deletes what is wrong and opens what is missing, as the targets say, and lets the filler fill: the most that this
    filler allows. Where a hole needs more masks than one gap takes, the rest stays out."""

    def __init__(self, loaded: Loaded) -> None:
        self._model = loaded.model
        self._writable = read_lexicon(loaded.tokenizer).writable.to(next(loaded.model.parameters()).device)

    def __call__(self, batches: Sequence[Batch], targets: Sequence[Batch]) -> Texts:
        return rows([self._corrected(*pair) for pair in zip(batches, targets, strict=True)])

    @torch.inference_mode()
    def _corrected(self, batch: Batch, target: Batch) -> Batch:
        match = align(batch.tokens, batch.length, target.tokens, target.length)
        keep = (match >= 0) & batch.present
        count = holes(match, keep).count.clamp_max(self._model.config.max_gap_count)
        masked = gaps.insert(gaps.drop(batch.tokens, keep), count, target.tokens.shape[1])
        return _filled(self._model, self._writable, masked.tokens, masked.length, masked.is_mask, batch.key)


def _filled(model: DualMask, writable: Tensor, masked: Tensor, length: Tensor, slots: Tensor, key: Tensor) -> Batch:
    """The likeliest writable token in each of the slots [B, T]."""
    slot = slots.flatten().nonzero().squeeze(1)
    logits = whole_vocabulary(model.fill(masked, length, slot), len(writable))
    best = logits.masked_fill(~writable, float("-inf")).argmax(-1)
    return Batch(masked.flatten().scatter(0, slot, best).view_as(masked), length, key)


def cross_fitted(candidates: int, texts: int, score: Score) -> np.ndarray:
    """[N] the candidate for each text: the best one on the texts of the other half, so that none is tuned on itself."""
    fold = np.arange(texts) % FOLDS
    chosen = np.zeros(texts, dtype=int)
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number)
        chosen[fold == number] = max(range(candidates), key=lambda candidate: score(candidate, others))
    return chosen
