"""GLEU: how near corrected sentences come to people's corrections of the same (Napoles et al. 2015, 2016).

BLEU's n-gram precision, from which n-grams are taken off that the source has and the reference does not: words that
should have been changed, and were not. Of several references one is drawn for each sentence; the figure of a corpus is
the mean over DRAWS such choices. This is the formula of the papers: n-grams are taken off as often as the source has
them more often than the reference. The authors' script takes off those alone that the reference lacks altogether, and
says some tenths of a point more where little was changed.
"""

# N sentences, R references, D draws, S statistics of one sentence and reference

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDER = 4  # longest n-gram
DRAWS = 500
STATISTICS = 2 + 2 * ORDER  # words of the hypothesis and of the reference; matches and n-grams of each length

Words = Sequence[str]


def columns(
    sources: Sequence[Words], hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], draws: int = DRAWS
) -> np.ndarray:
    """[N, D · S] statistics that add up over sentences, for ``gleu``. The references drawn depend on their numbers
    alone, so that all methods are held against the same ones."""
    random = np.random.default_rng(0)
    chosen = []
    for source, hypothesis, corrections in zip(sources, hypotheses, references, strict=True):
        each = np.array([sentence(source, hypothesis, correction) for correction in corrections])
        chosen.append(each[random.integers(len(each), size=draws)].ravel())
    return np.array(chosen, dtype=float)


def sentence(source: Words, hypothesis: Words, reference: Words) -> list[int]:
    """[S] statistics of one sentence against one reference."""
    found = [len(hypothesis), len(reference)]
    for size in range(1, ORDER + 1):
        in_source, ours, wanted = (_ngrams(words, size) for words in (source, hypothesis, reference))
        right, kept = ours & wanted, ours & in_source
        found += [max(right.total() - (kept - right).total(), 0), ours.total()]
    return found


def gleu(sums: np.ndarray) -> np.ndarray:
    """[…] from sums […, D · S] over sentences: the mean over the draws. 0 where an n-gram length has no match."""
    drawn = sums.reshape(*sums.shape[:-1], -1, STATISTICS)
    ours, wanted, matches, total = drawn[..., 0], drawn[..., 1], drawn[..., 2::2], drawn[..., 3::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.log(matches / total).mean(-1)
        brevity = np.minimum(0.0, 1.0 - wanted / ours)
    return np.asarray(np.nan_to_num(np.exp(brevity + precision)).mean(-1))


def _ngrams(words: Words, size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(itertools.islice(words, start, None) for start in range(size)), strict=False))
