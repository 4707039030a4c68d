"""Known words become others that may be meant: other forms of theirs, words of their class, words that sound alike.

A picker has to learn each mistake; the filler knows from right texts alone what fits ("There [MASK] two ways"). So each
word of a text that is mended is masked in turn, and of its companions (``core.confusions.companion_table``) that one is
written in its place of which the filler, told what stood there, is sure enough (``wording_threshold``).
"""

# N drafts, L positions, W positions behind the round, V vocabulary, C companions

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.confusions import companion_table
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.infer.spelling import Suspect, Written
from dualmask.families.edit.round import RoundResult, play_round

if TYPE_CHECKING:
    from dualmask.families.edit.infer.rounds import InferenceRules


class Rewording:
    """What of a round is worded anew. Texts that are not mended, and places that the round has edited, stay."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._table = companion_table(tokenizer)
        self._others = self._table.ids[..., 0]  # [V, C]

    def __call__(self, rules: InferenceRules, result: RoundResult, confidence: Tensor) -> tuple[RoundResult, Tensor]:
        """The round with other words in their places, and the probabilities [N, W] of what was written."""
        drafts = rules.drafts
        threshold = rules.tensor([budget.request.point.wording_threshold for budget in rules.budgets])[:, None]
        table, others = self._table.to(rules.device), self._others.to(rules.device)
        words = table.fits(drafts.tokens) & (others[drafts.tokens, 0] >= 0)
        asked = (words & rules.editable & (threshold < 1)).any(1).nonzero().squeeze(1)
        if not len(asked):
            return result, confidence
        # of all words, whichever may go: what is said of one must not depend on thresholds
        ids, prob = rules.model.reconsider(drafts.tokens[asked], drafts.length[asked], words[asked], others)
        chosen = words[asked] & rules.editable[asked] & (prob > threshold[asked])
        chosen &= ~pad(chosen, (1, 0))[:, :-1]  # the first of two neighbours
        written = Written.of(result, confidence)
        for number, place in chosen.nonzero().tolist():
            if not written.touched(row := int(asked[number]), place):
                token = int(ids[number, place]), float(prob[number, place])
                written.replace(Suspect(row, place, place + 1, ()), [token])
        played = play_round(drafts.tokens, drafts.length, written)
        return played, written.confidence(played.opened)
