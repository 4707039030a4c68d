"""How varied texts are, and how much they repeat themselves. Perplexity alone is fooled by repetition.

Figures over several texts depend on how many there are, so all are taken within groups of a fixed size.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence

GROUP = 8  # texts that are compared with each other


def ngrams(text: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(text[start:] for start in range(n)), strict=False))


def distinct(texts: Iterable[Sequence[Hashable]], n: int) -> tuple[int, int]:
    """(different n-grams, all n-grams) of a group: distinct-n of Li et al. 2016 is their ratio."""
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)), len(grams)


def repeated(text: Sequence[Hashable], n: int = 4) -> tuple[int, int]:
    """(n-grams that stood in this text before, all n-grams): seq-rep-n of Welleck et al. 2020 is their ratio."""
    grams = ngrams(text, n)
    return len(grams) - len(set(grams)), len(grams)


def self_bleu(texts: Sequence[str]) -> list[float]:
    """BLEU, 0 to 1, of each text of a group against all others of it (Zhu et al. 2018): the lower the more varied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True, tokenize="13a")
    others = ([*texts[:number], *texts[number + 1 :]] for number in range(len(texts)))
    return [bleu.sentence_score(text, rest).score / 100 for text, rest in zip(texts, others, strict=True)]
