"""Words that nobody writes become known ones: the noisy channel, with the model's own probabilities.

A round's deletions and fills are tokens, and a misspelt word is several of them, so that a round may mend it by halves
or write another word that does not exist. Where a text is mended, each unknown word that the picker doubts is deleted
whole, and of the known words near it (``core.near_words``) that one is written which inserter and filler together hold
for the most probable: P(number of pieces) · Π P(piece), both told what stood there (Kernighan, Church and Gale 1990).
"""

# N drafts, L positions, W positions behind the round, M slots, V vocabulary

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core.lexicon import character_starts
from dualmask.core.near_words import NearWords
from dualmask.core.tokenizer import MASK_ID, Tokenizer
from dualmask.core.words import WordList, words_of
from dualmask.families.edit.round import Opened, Remainder, RoundResult, drop, play_round, take
from dualmask.families.edit.told import NOT_TOLD
from dualmask.ops.gaps import gap_index, gap_present

if TYPE_CHECKING:
    from dualmask.families.edit.infer.rounds import InferenceRules

Place = tuple[int, int]  # a draft's number, and the position of a token in it

CONTEXT = 0.15  # power of what the model says, against what is known without the text; tuned on learners' sentences
MOST_PIECES = 6  # of a known word that may be written
_SENTENCE_BEGINS = re.compile(r"(?:^|[.!?]['\"”’)]*\s)[\s'\"“‘(]*$")


@dataclass(frozen=True)
class Choice:
    """Tokens that may be written, and what speaks for them beside the text: log P(written so | meant) + log P(word)."""

    tokens: tuple[int, ...]
    prior: float


@dataclass(frozen=True)
class Suspect:
    """An unknown word of a draft: its tokens [first, behind), and in tokens what it may be."""

    row: int
    first: int
    behind: int
    choices: tuple[Choice, ...]

    @property
    def place(self) -> Place:
        """Of the token in front of it, behind which the word is written anew."""
        return self.row, self.first - 1


@dataclass(frozen=True)
class Written:
    """Rules (``round.Rules``) that decide as they are told: what goes, and what comes ``behind`` which kept token, with
    the probability of each token."""

    deleted: Tensor  # [N, L] bool
    behind: dict[Place, list[tuple[int, float]]]

    @classmethod
    def of(cls, result: RoundResult, confidence: Tensor) -> Written:
        """A round that was played; confidence [N, W]."""
        behind: dict[Place, list[tuple[int, float]]] = {}
        written, row = result.is_mask, result.is_mask.nonzero()[:, 0]
        planes = (row, result.opened.source[written], result.tokens[written], confidence[written])
        for number, source, token, prob in zip(*(plane.tolist() for plane in planes), strict=True):
            behind.setdefault((number, source), []).append((token, prob))
        return cls(result.deleted.clone(), behind)

    def replace(self, suspect: Suspect, tokens: Sequence[tuple[int, float]]) -> None:
        """The suspect goes and ``tokens`` come; what else was decided between the kept tokens around it is undone."""
        row, gone = suspect.row, self.deleted[suspect.row]
        first, behind = suspect.first, suspect.behind
        while gone[first - 1]:
            first -= 1
        while gone[behind]:
            behind += 1
        gone[first:behind] = False
        for position in range(first - 1, behind):
            self.behind.pop((row, position), None)
        gone[suspect.first : suspect.behind] = True
        self.behind[suspect.place] = list(tokens)

    def touched(self, row: int, place: int) -> bool:
        """Whether the token, one of its neighbours or what stands between them is changed."""
        edited = any((row, position) in self.behind for position in (place - 1, place))
        return edited or bool(self.deleted[row, place - 1 : place + 2].any())

    def with_masks(self, suspects: Sequence[Suspect], number: int) -> Written:
        """The same with so many [MASK]s in place of each suspect."""
        asked = Written(self.deleted.clone(), dict(self.behind))
        for suspect in suspects:
            asked.replace(suspect, number * [(MASK_ID, 0.0)])
        return asked

    def delete(self) -> Tensor:
        return self.deleted

    def count(self, remainder: Remainder) -> Tensor:
        number = torch.zeros_like(self.deleted, dtype=torch.long)
        for (row, position), tokens in self.behind.items():
            number[row, position] = len(tokens)
        exists = gap_present(remainder.skeleton.length, number.shape[1])
        return take(number, remainder.source)[:, :-1] * exists

    def fill(self, opened: Opened) -> Tensor:
        return self._at_masks(opened, opened.masked.tokens, [token for token, _ in self._in_order])

    def confidence(self, opened: Opened) -> Tensor:
        """[N, W] of each token written; elsewhere 1."""
        ones = torch.ones_like(opened.masked.tokens, dtype=torch.float32)
        return self._at_masks(opened, ones, [prob for _, prob in self._in_order])

    @property
    def _in_order(self) -> Iterator[tuple[int, float]]:
        return (each for place in sorted(self.behind) for each in self.behind[place])

    @staticmethod
    def _at_masks(opened: Opened, values: Tensor, written: Sequence[float]) -> Tensor:
        out = values.clone()
        out[opened.masked.is_mask] = torch.tensor(written, dtype=out.dtype, device=out.device)
        return out


class Respelling:
    """What of a round is written anew. Texts that are not mended stay as they are."""

    def __init__(self, tokenizer: Tokenizer, words: WordList) -> None:
        self._tokenizer, self._words, self._near = tokenizer, words, NearWords(words)

    def __call__(self, rules: InferenceRules, result: RoundResult) -> tuple[RoundResult, Tensor]:
        """The round with the suspects replaced, and the probabilities [N, W] of what was written: of a respelt word
        that among its choices, at its first token."""
        suspects = list(self._suspects(rules))
        if not suspects:
            return result, rules.confidence
        written = Written.of(result, rules.confidence)
        for suspect, scores in zip(suspects, _scores(rules, written, suspects), strict=True):
            best = int(scores.argmax())
            first, *further = suspect.choices[best].tokens
            written.replace(suspect, [(first, float(scores.softmax(0)[best])), *((token, 1.0) for token in further)])
        played = play_round(rules.drafts.tokens, rules.drafts.length, written)
        return played, written.confidence(played.opened)

    def _suspects(self, rules: InferenceRules) -> Iterator[Suspect]:
        """Unknown words that may go, that the picker doubts and that known ones are near; no two side by side."""
        drafts, doubted = rules.drafts, rules.doubted & rules.editable
        for row in doubted.any(1).nonzero().squeeze(1).tolist():
            ids = drafts.tokens[row, 1 : int(drafts.length[row]) - 1].tolist()
            text, last = self._tokenizer.decode(ids), 0
            for (first, behind), word in self._unknown(text, character_starts(ids, rules.lexicon).tolist()):
                tokens = slice(first, behind)
                may_be = first > last and rules.editable[row, tokens].all() and doubted[row, tokens].any()
                if may_be and (choices := self._choices(word)):
                    last = behind
                    yield Suspect(row, first, behind, choices)

    def _unknown(self, text: str, starts: Sequence[int]) -> Iterator[tuple[tuple[int, int], str]]:
        """Unknown words that are whole tokens and may be misspelt ones, no names: their tokens, BOS being 0, and they
        themselves with the blank in front. starts [tokens + 1]: ``character_starts``."""
        at = {start: number for number, start in enumerate(starts, 1)}
        for start, end, word in words_of(text):
            begin = start - 1 if start - 1 in at and text[start - 1] == " " else start
            if self._words.known(word) or not word.isascii() or begin not in at or end not in at:
                continue
            if word.islower() or (word.istitle() and _SENTENCE_BEGINS.search(text[:start])):
                yield (at[begin], at[end]), text[begin:end]

    def _choices(self, word: str) -> tuple[Choice, ...]:
        written = word.lstrip()
        blank = word.removesuffix(written)
        choices = (
            Choice(tuple(self._tokenizer.encode(blank + near.word)), near.log_prob) for near in self._near.near(written)
        )
        return tuple(choice for choice in choices if len(choice.tokens) <= MOST_PIECES)


def _scores(rules: InferenceRules, written: Written, suspects: Sequence[Suspect]) -> list[Tensor]:
    """[choices] log probability of each choice of each suspect, up to a constant."""
    numbers = _number_scores(rules, written, suspects).cpu()
    scores = [torch.tensor([choice.prior for choice in suspect.choices]) for suspect in suspects]
    asked: dict[int, list[int]] = {}  # numbers of pieces, and the suspects that may be so many
    for number, suspect in enumerate(suspects):
        for pieces in {len(choice.tokens) for choice in suspect.choices}:
            asked.setdefault(pieces, []).append(number)
    opened = [written.with_masks([suspects[n] for n in alike], pieces) for pieces, alike in asked.items()]
    for (pieces, alike), said in zip(asked.items(), _fill_scores(rules, opened), strict=True):
        for number, fills in zip(alike, said.cpu().unflatten(0, (len(alike), pieces)), strict=True):
            for place, choice in enumerate(suspects[number].choices):
                if len(choice.tokens) == pieces:
                    text = numbers[number, pieces] + fills[range(pieces), choice.tokens].sum()
                    scores[number][place] += CONTEXT * text
    return scores


def _number_scores(rules: InferenceRules, written: Written, suspects: Sequence[Suspect]) -> Tensor:
    """[suspects, K+1] the inserter's log probability of each number of pieces in place of a suspect."""
    drafts, asked = rules.drafts, written.with_masks(suspects, 1)
    remainder = drop(drafts.tokens, drafts.length, asked.deleted)
    expected = asked.count(remainder).sum(1).float()
    logits = rules.model.gap_logits(remainder.skeleton, expected, rules.told_gaps(remainder))
    row, first = torch.tensor([(suspect.row, suspect.first) for suspect in suspects], device=logits.device).unbind(1)
    return logits[row, gap_index(remainder.keep)[row, first]].log_softmax(-1)


def _fill_scores(rules: InferenceRules, asked: Sequence[Written]) -> Sequence[Tensor]:
    """Of each of ``asked`` [M, V] the filler's log probabilities at the masks that are open, in the order of the texts.
    All are read in the same forwards."""
    results = [play_round(rules.drafts.tokens, rules.drafts.length, each) for each in asked]
    width = max(result.tokens.shape[1] for result in results)
    tokens = torch.cat([pad(result.tokens, (0, width - result.tokens.shape[1])) for result in results])
    known = [rules.replaced(result.opened) for result in results]
    told = torch.cat([pad(each, (0, 0, 0, width - each.shape[1]), value=NOT_TOLD) for each in known])
    open_slots = tokens == MASK_ID
    number = open_slots.flatten().cumsum(0) - 1
    out = torch.zeros(int(open_slots.sum()), rules.model.model.vocab_size, device=number.device)

    def note(logits: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
        out[number[slot]] = logits.float().log_softmax(-1)
        return torch.full_like(slot, MASK_ID), torch.zeros(len(slot), device=slot.device)

    rules.model.fill(tokens, torch.cat([result.length for result in results]), open_slots, told, note)
    return out.split([int(slots.sum()) for slots in open_slots.chunk(len(results))])
