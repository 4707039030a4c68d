"""Who deletes: the picker and the heuristics that it has to beat. Each gives [B, T] bool of the number asked."""

# B batch, T tokens

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.families.edit.masked_lm import MaskedLMScores, masked_lm_scores
from dualmask.families.edit.model import DualMask
from dualmask.nn.parallel.vocabulary import target_and_best_nll
from dualmask.ops import deletion

STRIDE = 8  # the greedy baseline sees a token's probability with every eighth token masked

Deleter = Callable[[Batch, Tensor], Tensor]  # (batch, keep rate [B]) → deleted [B, T]


def random(batch: Batch, keep_rate: Tensor) -> Tensor:
    score = noise.uniform(batch.key, "baseline", 0, batch.tokens.shape[1])
    return deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))


def frequent(token_count: Tensor) -> Deleter:
    """Most frequent tokens first; ``token_count`` [V]."""

    def delete(batch: Batch, keep_rate: Tensor) -> Tensor:
        score = token_count[batch.tokens].float()
        return deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))

    return delete


class FillerScores:
    """The filler's probability of each token of a batch; asked once a batch, whatever the number of rates."""

    def __init__(self, model: DualMask) -> None:
        self._model = model
        self._known: dict[int, tuple[Batch, MaskedLMScores]] = {}  # holds the batch too, so that its id stays its own

    def __call__(self, batch: Batch) -> Tensor:
        return self.opinion(batch).prob

    def opinion(self, batch: Batch) -> MaskedLMScores:
        if id(batch) not in self._known:
            self._known[id(batch)] = batch, masked_lm_scores(self._model.look, target_and_best_nll, batch, STRIDE)
        return self._known[id(batch)][1]

    def ratio(self, batch: Batch) -> Tensor:
        """[B, T] probability of each deletable token over that of the likeliest one there; 1 at the others."""
        opinion = self.opinion(batch)
        return torch.where(batch.deletable, opinion.prob / opinion.best.clamp_min(1e-9), 1.0)


def greedy(score_of: FillerScores, *, spaced: bool) -> Deleter:
    """What the filler is surest of first; ``spaced``: no two neighbours as long as the budget allows."""

    def delete(batch: Batch, keep_rate: Tensor) -> Tensor:
        score, number = score_of(batch), deletion.budget(batch.deletable, keep_rate)
        if spaced:
            return best_apart(score, batch.deletable, number)
        return deletion.best_first(score, batch.deletable, number)

    return delete


def picker(model: DualMask) -> Deleter:
    def delete(batch: Batch, keep_rate: Tensor) -> Tensor:
        return (model.pick(batch, keep_rate, step=0, temperature=0.0).keep < 0.5) & batch.deletable

    return delete


def best_apart(score: Tensor, deletable: Tensor, number: Tensor) -> Tensor:
    """Like ``best_first``, but a token beside a chosen one comes only after all others."""
    chosen = torch.zeros_like(deletable)
    for _ in range(int(number.max()) if len(number) else 0):
        padded = torch.nn.functional.pad(chosen, (1, 1))
        beside = padded[:, :-2] | padded[:, 2:]
        rank = torch.where(beside, score - 2.0, score).masked_fill(~deletable | chosen, float("-inf"))
        best = torch.nn.functional.one_hot(rank.argmax(1), score.shape[1]).bool()
        chosen = chosen | (best & (chosen.sum(1) < number)[:, None] & deletable)
    return chosen
