"""Known words become others that may be meant, and neighbours change places.

A picker has to learn each mistake; the filler knows from right texts alone what fits ("There [MASK] two ways"). So each
word of a text that is mended and that the picker doubts a little is masked in turn, and of its companions
(``core.confusions.companion_table``: other forms, words of its class, words that sound alike) that one is written in
its place of which the filler, told what stood there, is sure enough (``wording_threshold``). Two words side by side,
one of them doubted, are masked together, and change places if the filler finds them as much more probable so.
"""

# N drafts, L positions, W positions behind the round, V vocabulary, C companions

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.confusions import companion_table
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.infer.spelling import Suspect, Written
from dualmask.families.edit.infer.windows import SecondThoughts
from dualmask.families.edit.round import RoundResult, play_round

if TYPE_CHECKING:
    from dualmask.families.edit.infer.rounds import InferenceRules

DOUBT = 0.03  # least probability, by the picker, that a word is wrong, or one of a pair, before the filler is asked
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
        asked = _Asked.of(rules, rows, words[rows], table.ids[..., 0])
        swaps, others = asked.swaps(threshold[rows]), asked.others(threshold[rows])
        if not swaps and not others:
            return result, confidence
        written = Written.of(result, confidence)
        for suspect, new in swaps:  # better than deleting one of the two
            written.replace(suspect, new)
        for suspect, new in others:
            if not written.touched(suspect.row, suspect.first):
                written.replace(suspect, new)
        played = play_round(tokens, rules.drafts.length, written)
        return played, written.confidence(played.opened)


@dataclass(frozen=True)
class _Asked:
    """What the filler was asked, of the drafts ``rows`` [n], and what it said. It is asked about what the picker
    doubts, whichever may go: what is said of one must not depend on the thresholds of requests."""

    rows: Tensor
    tokens: Tensor  # [n, L]
    editable: Tensor  # [n, L] bool
    words: Tensor  # [n, L] bool: doubted words that have companions
    pairs: Tensor  # [n, L] bool: words behind which another one stands, both with a blank in front, one of them doubted
    said: SecondThoughts

    @classmethod
    def of(cls, rules: InferenceRules, rows: Tensor, words: Tensor, others: Tensor) -> _Asked:
        """words [n, L] bool: known words; others [V, C]: companions."""
        tokens, length, editable = rules.drafts.tokens[rows], rules.drafts.length[rows], rules.editable[rows]
        twice = tokens == tokens.roll(-1, 1)
        doubled = twice | twice.roll(1, 1) | twice.roll(-1, 1)  # another mistake
        doubted = torch.sigmoid(rules.wrong[rows]) > DOUBT
        pairs = _begins(words & rules.lexicon.begins_space[tokens]) & ~doubled & (doubted | doubted.roll(-1, 1))
        words = words & doubted & (others[tokens, 0] >= 0)
        said = rules.model.reconsider(tokens, length, words, pairs, others)
        return cls(rows, tokens, editable, words, pairs, said)

    def others(self, threshold: Tensor) -> list[Change]:
        """Of the words that may go those of whose companions the filler is surer than ``threshold`` [n, 1]."""
        said, chosen = self.said, self.words & self.editable & (self.said.prob > threshold)
        return [
            (self._suspect(number, place, 1), [(int(said.ids[number, place]), float(said.prob[number, place]))])
            for number, place in chosen.nonzero().tolist()
        ]

    def swaps(self, threshold: Tensor) -> list[Change]:
        """Of the pairs that may go those of whose other order it is surer."""
        changes, chosen = [], self.pairs & _begins(self.editable) & (self.said.swap_prob > threshold)
        for number, place in chosen.nonzero().tolist():
            first, second = self.tokens[number, place : place + 2].tolist()
            new = [(second, float(self.said.swap_prob[number, place])), (first, 1.0)]
            changes.append((self._suspect(number, place, 2), new))
        return changes

    def _suspect(self, number: int, place: int, size: int) -> Suspect:
        return Suspect(int(self.rows[number]), place, place + size, ())


def _begins(words: Tensor) -> Tensor:
    """[N, L] bool: of words [N, L] bool those that another one follows."""
    return words & pad(words, (0, 1))[:, 1:]
