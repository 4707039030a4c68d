"""Known words become others that may be meant, and neighbours change places.

A picker has to learn each mistake; the filler knows from right texts alone what fits ("There [MASK] two ways"). So each
word of a text that is mended is masked in turn, and of its companions (``core.confusions.companion_table``: other
forms, words of its class, words that sound alike) that one is written in its place of which the filler, told what stood
there, is sure enough (``wording_threshold``). Two words side by side are masked together, and change places if the
filler finds them as much more probable so.
"""

# N drafts, L positions, W positions behind the round, V vocabulary, C companions

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.confusions import companion_table
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.infer.spelling import Suspect, Written
from dualmask.families.edit.round import RoundResult, play_round

if TYPE_CHECKING:
    from dualmask.families.edit.infer.rounds import InferenceRules

Change = tuple[Suspect, list[tuple[int, float]]]  # what goes, and what comes with which probability


class Rewording:
    """What of a round is worded anew. Texts that are not mended, and places that the round has edited, stay."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._table = companion_table(tokenizer)

    def __call__(self, rules: InferenceRules, result: RoundResult, confidence: Tensor) -> tuple[RoundResult, Tensor]:
        """The round with other words in their places, and the probabilities [N, W] of what was written."""
        tokens = rules.drafts.tokens
        threshold = rules.tensor([budget.request.point.wording_threshold for budget in rules.budgets])[:, None]
        threshold = threshold.clamp_min(0.5)  # nothing becomes what is less probable
        table = self._table.to(rules.device)
        words = table.fits(tokens) & rules.lexicon.plain[tokens]
        rows = (words & rules.editable & (threshold < 1)).any(1).nonzero().squeeze(1)
        if not len(rows):
            return result, confidence
        written = Written.of(result, confidence)
        given = words[rows], rows, threshold[rows]
        for suspect, new in _reordered(rules, *given):  # better than deleting one of the two
            written.replace(suspect, new)
        for suspect, new in _reworded(rules, table.ids[..., 0], *given):
            if not written.touched(suspect.row, suspect.first):
                written.replace(suspect, new)
        played = play_round(tokens, rules.drafts.length, written)
        return played, written.confidence(played.opened)


# Both are asked about all words, whichever may go: what is said of one must not depend on thresholds.
def _reworded(
    rules: InferenceRules, others: Tensor, words: Tensor, rows: Tensor, threshold: Tensor
) -> Iterator[Change]:
    """others [V, C]: companions; words [n, L] bool and threshold [n, 1]: of the drafts ``rows`` [n]."""
    tokens, length = rules.drafts.tokens[rows], rules.drafts.length[rows]
    words = words & (others[tokens, 0] >= 0)
    ids, prob = rules.model.reconsider(tokens, length, words, others)
    chosen = words & rules.editable[rows] & (prob > threshold)
    for number, place in chosen.nonzero().tolist():
        suspect = Suspect(int(rows[number]), place, place + 1, ())
        yield suspect, [(int(ids[number, place]), float(prob[number, place]))]


def _reordered(rules: InferenceRules, words: Tensor, rows: Tensor, threshold: Tensor) -> Iterator[Change]:
    """The same of two words side by side, both with a blank in front."""
    tokens, length, editable = rules.drafts.tokens[rows], rules.drafts.length[rows], rules.editable[rows]
    words = words & rules.lexicon.begins_space[tokens]
    twice = tokens == tokens.roll(-1, 1)
    pairs = _begins(words) & ~(twice | twice.roll(1, 1) | twice.roll(-1, 1))  # a doubled word is another mistake
    prob = torch.sigmoid(rules.model.misplaced(tokens, length, pairs))
    chosen = pairs & _begins(editable) & (prob > threshold)
    for number, place in chosen.nonzero().tolist():
        first, second = tokens[number, place : place + 2].tolist()
        yield Suspect(int(rows[number]), place, place + 2, ()), [(second, float(prob[number, place])), (first, 1.0)]


def _begins(words: Tensor) -> Tensor:
    """[N, L] bool: of words [N, L] bool those that another one follows."""
    return words & pad(words, (0, 1))[:, 1:]
