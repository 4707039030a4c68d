"""A second look at what a round did: of its edits those stay behind which the filler finds the text more probable by
enough, and that write words which are known.

An edit is a gap of the skeleton with what was deleted from it and what was written there. What is not approved is as if
it had never been decided: the round is played again without it.
"""

# N drafts, L positions, W positions behind the round, G gaps

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.tokenizer import Tokenizer
from dualmask.core.words import WordList, words_of
from dualmask.families.edit.round import Opened, Remainder, RoundResult, take
from dualmask.ops.gaps import gap_counts, gap_index, gap_present

ONE_LETTER = "aAI"  # words
REACH = 1  # tokens on either side of an edit that count, too; each costs two readings


@dataclass(frozen=True)
class Replayed:
    """Rules (``round.Rules``) that decide as a round did, but for the gaps that are not ``approved`` [N, G]."""

    result: RoundResult
    approved: Tensor

    def delete(self) -> Tensor:
        remainder = self.result.opened.remainder
        gap = gap_index(remainder.keep).clamp(0, self.approved.shape[1] - 1)
        return remainder.deleted & self.approved.gather(1, gap)

    def count(self, remainder: Remainder) -> Tensor:
        before = self.result.opened
        count = pad(before.count * self.approved, (0, 1))
        in_front = torch.zeros_like(count).scatter_add(1, before.remainder.source, count)  # by position in the draft
        exists = gap_present(remainder.skeleton.length, count.shape[1])
        return take(in_front, remainder.source)[:, :-1] * exists

    def fill(self, opened: Opened) -> Tensor:
        return self.carried(opened, self.result.tokens)

    def carried(self, opened: Opened, values: Tensor) -> Tensor:
        """[N, W'] at the masks of ``opened`` the ``values`` [N, W] of the same masks of the result; elsewhere, of ids,
        the text. Both have these masks in the same order."""
        masked = self.result.opened.masked
        gap = masked.gap.clamp(0, self.approved.shape[1] - 1)
        stay = masked.is_mask & self.approved.gather(1, gap)
        out = opened.masked.tokens.to(values.dtype).clone()
        out[opened.masked.is_mask] = values[stay]
        return out


def edited(result: RoundResult) -> Tensor:
    """[N, G] bool: gaps from which something was deleted or in which something was written."""
    remainder = result.opened.remainder
    return (gap_counts(remainder.keep, remainder.deleted) + result.count) > 0


def unchanged(result: RoundResult, draft: Tensor) -> Tensor:
    """[N, G] bool: gaps in which the round wrote just what it had deleted from the ``draft`` [N, L]."""
    opened = result.opened
    gone = gap_counts(opened.remainder.keep, opened.remainder.deleted)
    same = (opened.replaced >= 0) & (take(draft, opened.replaced.clamp_min(0)) == result.tokens)
    return (gone > 0) & (gone == opened.count) & (_of_gaps(result, same.long()) == opened.count)


def keeps_pairs(result: RoundResult, draft: Tensor, paired: Tensor) -> Tensor:
    """[N, G] bool: the edit writes as many quotation marks and brackets as it deletes from the ``draft`` [N, L]. They
    come in pairs, and an edit sees one place. paired [V]: how many each token has."""
    remainder = result.opened.remainder
    gone = gap_counts(remainder.keep, remainder.deleted * paired[draft])
    return gone == _of_gaps(result, paired[result.tokens])


def sureness(result: RoundResult, confidence: Tensor) -> Tensor:
    """[N, G] probability of all that was written in each gap; 1 where nothing was. confidence [N, W]: of each token."""
    return _of_gaps(result, confidence.float().clamp_min(1e-30).log()).exp()


def _of_gaps(result: RoundResult, values: Tensor) -> Tensor:
    """[N, G] sum of the ``values`` [N, W] of what was written in each gap."""
    masked, width = result.opened.masked, result.count.shape[1]
    gap = torch.where(masked.is_mask, masked.gap, width)  # the others: a column that is cut off
    return values.new_zeros(len(values), width + 1).scatter_add(1, gap, values)[:, :-1]


def around(result: RoundResult, gaps: Tensor) -> tuple[Tensor, Tensor]:
    """[N, L] and [N, W] bool: tokens of draft and result whose probability counts (``gains``) for an edit of one of the
    ``gaps`` [N, G] bool."""
    edits = (edited(result) & gaps).long()
    planes = []
    for (first, behind), plane in zip(_ranges(result), (result.deleted, result.tokens), strict=True):
        change = edits.new_zeros(len(edits), plane.shape[1] + 1)
        change = change.scatter_add(1, first, edits).scatter_add(1, behind, -edits)
        planes.append(change.cumsum(1)[:, :-1] > 0)
    return planes[0], planes[1]


def gains(result: RoundResult, before: Tensor, after: Tensor) -> Tensor:
    """[N, G] by how many nats the text around each edit is more probable than before: the sum of the log probabilities
    of what stands there, REACH tokens on either side included, behind the round less in front of it.

    before [N, L], after [N, W]: log probability of each token of draft and result where it is masked; 0 at BOS and EOS.
    """
    old, new = (
        total.gather(1, behind) - total.gather(1, first)
        for total, (first, behind) in zip(map(_totals, (before, after)), _ranges(result), strict=True)
    )
    return new - old


def _totals(nats: Tensor) -> Tensor:
    """[N, L + 1] sums of what is in front of each token."""
    return pad(nats.float().cumsum(1), (1, 0))


def _ranges(result: RoundResult) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the draft, then of the result: the first token [N, G] that counts for the edit of a gap, and the one behind
    the last."""
    remainder, masked, count = result.opened.remainder, result.opened.masked, result.count
    source = remainder.source
    place = torch.arange(source.shape[1], device=source.device) + pad(count.cumsum(1), (1, 0))  # of kept tokens behind
    length = remainder.keep.sum(1) + remainder.deleted.sum(1)
    for kept, size, width in ((source, length, source.shape[1]), (place, masked.length, masked.tokens.shape[1])):
        first = (kept[:, :-1] + 1 - REACH).clamp_min(1)
        behind = torch.minimum(kept[:, 1:] + REACH, size[:, None] - 1).clamp(1, width)
        yield torch.minimum(first, behind), behind


class WordCheck:
    """Whether edits write words that are known."""

    def __init__(self, tokenizer: Tokenizer, words: WordList) -> None:
        self._tokenizer, self._words = tokenizer, words

    def __call__(self, result: RoundResult, draft: Tensor, draft_length: Tensor) -> Tensor:
        """[N, G] bool: no word that the edit of the gap wrote or changed is unknown. True where nothing was edited."""
        asked = edited(result)
        approved = torch.ones_like(asked)
        count = result.count.tolist()
        for row in asked.any(1).nonzero().squeeze(1).tolist():
            before = self._tokenizer.decode(draft[row, : int(draft_length[row])].tolist())
            old = {word for _, _, word in words_of(before)}
            after = result.tokens[row, : int(result.length[row])].tolist()
            words = words_of(self._tokenizer.decode(after))
            for gap in asked[row].nonzero().squeeze(1).tolist():
                place = gap + sum(count[row][:gap])
                first, behind = (
                    len(self._tokenizer.decode(after[:stop])) for stop in (place + 1, place + 1 + count[row][gap])
                )  # characters; the same where something was only deleted
                touched = [word for start, end, word in words if start <= behind and end >= first]
                approved[row, gap] = all(word in old or self._may_write(word) for word in touched)
        return approved

    def _may_write(self, word: str) -> bool:
        """Single letters are names at best, which an edit cannot know."""
        return self._words.known(word) and (len(word) > 1 or word in ONE_LETTER)
