"""Who deletes: the picker and the heuristics that it has to beat. Each gives [B, T] bool of the requested number."""

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

Deleter = Callable[[Tensor], Tensor]  # keep rate [B] → deleted [B, T], of one batch


def random(batch: Batch, keep_rate: Tensor) -> Tensor:
    score = noise.uniform(batch.key, "baseline", 0, batch.tokens.shape[1])
    return deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))


def frequent(batch: Batch, token_count: Tensor, keep_rate: Tensor) -> Tensor:
    """Most frequent tokens first; ``token_count`` [V]."""
    score = token_count[batch.tokens].float()
    return deletion.best_first(score, batch.deletable, deletion.budget(batch.deletable, keep_rate))


def greedy(batch: Batch, prob: Tensor, keep_rate: Tensor, *, spaced: bool) -> Tensor:
    """What the filler is surest of first, by its probabilities [B, T]; ``spaced``: no two neighbours as long as the
    budget allows."""
    choose = best_apart if spaced else deletion.best_first
    return choose(prob, batch.deletable, deletion.budget(batch.deletable, keep_rate))


def picker(model: DualMask, batch: Batch, keep_rate: Tensor) -> Tensor:
    return (model.pick(batch, keep_rate, step=0, temperature=0.0).keep < 0.5) & batch.deletable


def filler_scores(model: DualMask, batch: Batch) -> MaskedLMScores:
    """The filler's probability of each token of a batch: several filler passes, so ask once a batch."""
    return masked_lm_scores(model.look, target_and_best_nll, batch, STRIDE)


def likelihood_ratio(batch: Batch, scores: MaskedLMScores) -> Tensor:
    """[B, T] probability of each deletable token over that of the likeliest one there; 1 at the others."""
    return torch.where(batch.deletable, scores.prob / scores.best.clamp_min(1e-9), 1.0)


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
