"""How inference decides in a round (``round.Rules``): within budgets, through windows, around what is locked, by
thresholds, in one or several fill steps. Knows ids and budgets."""

# N drafts, L positions, W positions behind the round, G gaps, R regions, V vocabulary, M slots of one forward

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from dualmask.core import noise
from dualmask.core.batch import deletable as deletable_tokens
from dualmask.core.batch import present
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.infer.approval import (
    Replayed,
    WordCheck,
    around,
    edited,
    gains,
    keeps_pairs,
    sureness,
    unchanged,
)
from dualmask.families.edit.infer.budget import TEXT, Budget
from dualmask.families.edit.infer.drafts import Drafts
from dualmask.families.edit.infer.known_words import KnownWords
from dualmask.families.edit.infer.regions import gather_regions
from dualmask.families.edit.infer.request import Round
from dualmask.families.edit.infer.windows import Choose, WindowedModel
from dualmask.families.edit.picker import decide
from dualmask.families.edit.round import Opened, Remainder, RoundResult, play_round, said_twice
from dualmask.families.edit.stopping import fill_confidence
from dualmask.families.edit.told import ToldGaps, tokens_at, told_gaps, told_masks
from dualmask.ops import allocate, sampling
from dualmask.ops.gaps import gap_rate


@dataclass(frozen=True)
class InferredRound:
    """What a round did to a batch of drafts.

    drafts      after the round
    changed     [N] bool: something was deleted or inserted
    confidence  [N] mean confidence of what was filled, 0 where nothing was
    rounds      one a draft
    """

    drafts: Drafts
    changed: Tensor
    confidence: Tensor
    rounds: list[Round]


def infer_round(
    model: WindowedModel, drafts: Drafts, budgets: Sequence[Budget], known: KnownWords | None = None
) -> InferredRound:
    """One round of drafts that are all in the same round of their requests. Closes it in the budgets.

    known: the words that edits of texts that are mended may write; None: they may write any.
    """
    rules = InferenceRules(model, drafts, budgets)
    result = play_round(drafts.tokens, drafts.length, rules)
    confidence = rules.confidence
    if known is not None:
        result, confidence = known.reword(rules, *known.respell(rules, result))
    if bool(rules.told.any()) and bool(result.changed.any()):
        result, confidence = _approved(rules, result, confidence, None if known is None else known.check)
    written_prob = torch.where(result.is_mask, confidence, result.opened.carry(drafts.written_prob))
    for row in rules.told.nonzero().squeeze(1).tolist():
        rules.grown[row] = {TEXT: int(result.count[row].sum())}
    after = replace(drafts.opened(result.opened), tokens=result.tokens, written_prob=written_prob)
    for budget, lost, grown in zip(budgets, result.deleted.sum(1).tolist(), rules.grown, strict=True):
        budget.close_round(lost, grown)
    return InferredRound(
        drafts=after,
        changed=result.changed,
        confidence=fill_confidence(confidence, result.is_mask),
        rounds=list(_trace(rules.gate.tolist(), drafts, result, confidence)),
    )


def _approved(
    rules: InferenceRules, result: RoundResult, confidence: Tensor, word_check: WordCheck | None
) -> tuple[RoundResult, Tensor]:
    """The round of texts that are mended without the edits that do not stand a second look, and the confidences.
    confidence [N, W]: of what was written."""
    drafts, budgets = rules.drafts, rules.budgets
    least = [budget.request.point.preference for budget in budgets]
    least_sure = rules.tensor([budget.request.point.fill_threshold for budget in budgets])
    approved = ~unchanged(result, drafts.tokens) & (sureness(result, confidence) >= least_sure[:, None])
    approved &= keeps_pairs(result, drafts.tokens, rules.lexicon.paired)
    if word_check is not None:
        approved &= word_check(result, drafts.tokens, drafts.length)
    if any(value is not None for value in least):  # last: it alone asks the model, about what is still approved
        least_gain = rules.tensor([-math.inf if value is None else value for value in least])
        approved &= gains(result, *_log_probs(rules, result, approved & rules.told[:, None])) >= least_gain[:, None]
    approved |= ~rules.told[:, None]
    if bool((approved | ~edited(result)).all()):
        return result, confidence
    again = Replayed(result, approved)
    replayed = play_round(drafts.tokens, drafts.length, again)
    return replayed, torch.where(replayed.is_mask, again.carried(replayed.opened, confidence), 1.0)


def _log_probs(rules: InferenceRules, result: RoundResult, gaps: Tensor) -> tuple[Tensor, Tensor]:
    """[N, L] and [N, W] log probabilities of tokens around the edits of ``gaps`` [N, G] bool, where they are masked,
    before and after the round; 0 elsewhere. Both are read in the same forwards."""
    drafts, width = rules.drafts, max(rules.drafts.tokens.shape[1], result.tokens.shape[1])
    counts = around(result, gaps)
    rows = (edited(result) & gaps).any(1).nonzero().squeeze(1)
    tokens, asked = (
        torch.cat([pad(plane[rows], (0, width - plane.shape[1])) for plane in planes])
        for planes in ((drafts.tokens, result.tokens), counts)
    )
    before, after = torch.zeros(2, len(drafts.tokens), width, device=rules.device)
    if len(rows):
        nats = rules.model.log_probs(tokens, torch.cat([drafts.length[rows], result.length[rows]]), asked)
        before[rows], after[rows] = nats.chunk(2)
    return before[:, : drafts.tokens.shape[1]], after[:, : result.tokens.shape[1]]


def deletable(drafts: Drafts, lexicon: Lexicon) -> Tensor:
    """[N, L] bool: what may be deleted; of a character that is made of several bytes the first."""
    return drafts.deletable & ~lexicon.continuation[drafts.tokens]


class InferenceRules:
    gate: Tensor  # [N] probability that the round edits
    told: Tensor  # [N] bool: the text is mended, so that inserter and filler may know what was deleted
    wrong: Tensor  # [N, L] logit that a token of the draft is wrong, where a text is mended
    editable: Tensor  # [N, L] bool: the text is mended in this round, and the token may go
    doubted: Tensor  # [N, L] bool: it may be part of a misspelt word
    grown: list[dict[int, int]]  # of each draft: masks opened in each region
    confidence: Tensor  # [N, W] the model's probability of each token written in this round; elsewhere 1

    def __init__(self, model: WindowedModel, drafts: Drafts, budgets: Sequence[Budget]) -> None:
        self.model, self.lexicon = model, model.lexicon
        self.drafts, self.budgets = drafts, budgets
        self.device = drafts.tokens.device

    def delete(self) -> Tensor:
        """The picker's choice where Gate and budget allow one. The bytes of a character go with its first one, and
        count as one token."""
        drafts, budgets = self.drafts, self.budgets
        allowed = deletable(drafts, self.lexicon)
        most = allowed.sum(1)
        number = [budget.deletions(here) for budget, here in zip(budgets, most.tolist(), strict=True)]
        self.told = self.tensor([here is None for here in number], torch.bool)
        forced = self.tensor([math.nan if budget.gate is None else budget.gate for budget in budgets])
        if not any(number) and None not in number:
            self.gate = forced
            self.editable = self.doubted = torch.zeros_like(allowed)
            return self.editable
        keep_rate = 1 - self.tensor([here or 0 for here in number]) / most.clamp_min(1)  # 1: what is wrong
        scores = self.model.read(drafts.tokens, drafts.length, keep_rate, drafts.written_prob)
        self.wrong = scores.logits.wrong
        threshold = self.tensor([budget.request.point.edit_threshold for budget in budgets])
        logits = replace(scores.logits, wrong=scores.logits.wrong - torch.logit(threshold, eps=1e-6)[:, None])
        temperature = self.tensor([budget.request.sampling.place_temperature for budget in budgets])
        logistic_noise = noise.logistic(drafts.key, "pick", budgets[0].round, allowed.shape[1])
        share = keep_rate if any(number) else None  # nobody asks for a number: none is searched for
        chosen = decide(self.model.config, logits, allowed, share, logistic_noise, temperature[:, None])
        edits, self.gate = self._gate(scores.gate_logit, forced)
        chosen &= edits & self.tensor([here != 0 for here in number], torch.bool)[:, None]
        self.editable = allowed & edits & self.told[:, None]
        spelling = self.tensor([budget.request.point.spelling_threshold for budget in budgets])
        self.doubted = torch.sigmoid(self.wrong) > spelling[:, None]
        return self._apart(chosen.gather(1, self._first_byte(drafts.tokens)))

    def _gate(self, logit: Tensor, forced: Tensor) -> tuple[Tensor, Tensor]:
        """[N, L] bool: may be edited; [N] the probability of that: a long draft's is that of its worst window.

        logit [N, L]: the Gate's on the window in which a token stands; forced [N]: a decision, or NaN.
        """
        prob = torch.where(forced.isnan()[:, None], torch.sigmoid(logit), forced[:, None])
        threshold = self.tensor([budget.request.point.gate_threshold for budget in self.budgets])
        edits = torch.where(forced.isnan()[:, None], prob > threshold[:, None], forced[:, None] > 0)
        read = present(self.drafts.length - 1, logit.shape[1])  # EOS stands in no core
        return edits, prob.masked_fill(~read, 0.0).amax(1)

    def _apart(self, deleted: Tensor) -> Tensor:
        """[N, L] ``deleted`` without the tokens behind a ``spaced`` one where no space would follow it."""
        tokens, last = self.drafts.tokens, deleted.shape[1] - 1
        kept = torch.where(deleted, last, torch.arange(last + 1, device=self.device))
        behind = tokens.gather(1, kept.flip(1).cummin(1).values.flip(1)[:, 1:])
        glued = self.drafts.spaced[:, :-1] & ~self.lexicon.begins_space[behind]
        return torch.cat([deleted[:, :1], deleted[:, 1:] & ~glued], dim=1)

    def _first_byte(self, tokens: Tensor) -> Tensor:
        """[N, L] the position of the token that begins the character in which this one stands."""
        position = torch.arange(tokens.shape[1], device=self.device)
        return torch.where(self.lexicon.continuation[tokens], 0, position).cummax(1).values

    def count(self, remainder: Remainder) -> Tensor:
        """Masks per gap, placed where they are most likely within each region's total."""
        budgets, lost = self.budgets, remainder.deleted.sum(1).tolist()
        region, open_gaps = self.drafts.open_gaps(remainder, self.lexicon)
        open_gaps &= self.tensor([budget.opens for budget in budgets], torch.bool)[:, None]
        # the inserter cannot know what was a copy, because it does not see what stood there
        inner = deletable_tokens(self.drafts.length, self.drafts.tokens.shape[1])
        open_gaps &= ~(said_twice(remainder, self.drafts.tokens, inner) & self.told[:, None])
        self.grown = [{} for _ in budgets]
        if not open_gaps.any():
            return torch.zeros_like(open_gaps, dtype=torch.long)
        expected = [n + sum(b.due(here) or 0 for here in b.regions) for b, n in zip(budgets, lost, strict=True)]
        told = self.told_gaps(remainder)
        logits = self.model.gap_logits(remainder.skeleton, self.tensor(expected), told)
        temperature = self.tensor([budget.request.sampling.place_temperature for budget in budgets])
        gumbel = noise.gumbel(self.drafts.key, "count", budgets[0].round, *logits.shape[1:])
        score = allocate.count_scores(logits, temperature, gumbel)
        score[..., 0] += self._reluctance(told.number)
        regions = gather_regions(region, open_gaps)
        likely = regions.take(allocate.most_likely(score, open_gaps)).sum(1).tolist()
        rate = regions.take(gap_rate(logits, open_gaps)).sum(1).tolist()
        owners = list(zip(regions.row.tolist(), regions.region.tolist(), strict=True))
        total = [budgets[n].masks(r, lost[n], likely[i], rate[i]) for i, (n, r) in enumerate(owners)]
        count = allocate.exact_total(regions.take(score), regions.exists, self.tensor(total, torch.long))
        for (row, here), number in zip(owners, count.sum(1).tolist(), strict=True):
            self.grown[row][here] = number
        return regions.put(count, open_gaps.shape)

    def _reluctance(self, gone: Tensor) -> Tensor:
        """[N, G] what the insert threshold adds to the log probability that nothing is missing in a gap, where nothing
        was deleted. gone [N, G]: tokens deleted from each gap, NOT_TOLD in texts that are not mended."""
        threshold = self.tensor([budget.request.point.insert_threshold for budget in self.budgets])
        return torch.where(gone == 0, torch.logit(threshold, eps=1e-6)[:, None], 0.0)

    def told_gaps(self, remainder: Remainder) -> ToldGaps:
        """What the inserter is told, in ids."""
        told = told_gaps(remainder, self.told, self.model.config.told_pieces)
        return told._replace(pieces=tokens_at(self.drafts.tokens, told.pieces))

    def replaced(self, opened: Opened) -> Tensor:
        """[N, W, 1 + P] what the filler is told, in ids."""
        return tokens_at(self.drafts.tokens, told_masks(opened, self.told, self.model.config.told_pieces))

    def fill(self, opened: Opened) -> Tensor:
        tokens, self.confidence = self._fill(self.drafts.opened(opened), opened, self.budgets)
        return tokens

    def _fill(self, masked: Drafts, opened_gaps: Opened, budgets: Sequence[Budget]) -> tuple[Tensor, Tensor]:
        """(ids, confidence) [N, L]: fills the slots, the most confident first where several steps are asked for."""
        slots = opened_gaps.masked.is_mask
        replaced = self.replaced(opened_gaps)
        params = sampling.SamplingBatch.of([budget.request.sampling for budget in budgets], self.device)
        tokens, opened = masked.tokens, slots
        confidence = torch.ones(tokens.shape, device=self.device)
        for step in range(int(params.fill_steps.max())):
            if not opened.any():
                break
            choose = self._chooser(masked, slots, budgets, step)
            tokens, new_confidence = self.model.fill(tokens, masked.length, opened, replaced, choose)
            confidence = torch.where(opened, new_confidence, confidence)
            again = sampling.still_open(slots.sum(1), step, params.fill_steps)
            opened = sampling.least_confident(confidence, torch.where(params.remask[:, None], slots, opened), again)
            tokens = torch.where(opened, MASK_ID, tokens)
        return tokens, confidence

    def _chooser(self, masked: Drafts, slots: Tensor, budgets: Sequence[Budget], step: int) -> Choose:
        """``choose(logits [M, V], slot [M])`` for one fill step; slot: index into the flattened [N·L]."""
        width = slots.shape[1]
        uniform = noise.uniform(masked.key, f"fill {step}", budgets[0].round, width).flatten()
        spaced = pad(masked.spaced[:, :-1], (1, 0)).flatten()
        plain_only = self.tensor([budget.request.protection is not None for budget in budgets], torch.bool)
        params = sampling.SamplingBatch.of([budget.request.sampling for budget in budgets], self.device)

        def choose(logits: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
            allowed = self.lexicon.writable & (self.lexicon.begins_space | ~spaced[slot][:, None])
            allowed &= self.lexicon.plain | ~plain_only[slot // width][:, None]
            return sampling.choose(logits, allowed, uniform[slot], params.rows(slot // width))

        return choose

    def tensor(self, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=dtype)


def _trace(gate: Sequence[float], before: Drafts, result: RoundResult, confidence: Tensor) -> Iterator[Round]:
    """The round of each draft as plain lists."""
    lengths, new_lengths = before.length.tolist(), result.length.tolist()
    for row, (length, new_length) in enumerate(zip(lengths, new_lengths, strict=True)):
        gone = result.deleted[row, :length]
        kept = (~gone).nonzero().squeeze(1)
        slots = result.is_mask[row].nonzero().squeeze(1)
        count = result.count[row]
        gaps = count.nonzero().squeeze(1)
        tokens = result.tokens[row, :new_length].tolist()
        yield Round(
            gate=gate[row],
            draft=before.tokens[row, :length].tolist(),
            deleted=gone.nonzero().squeeze(1).tolist(),
            inserted=list(zip(kept[gaps].tolist(), count[gaps].tolist(), strict=True)),
            filled=[
                (position, tokens[position], prob)
                for position, prob in zip(slots.tolist(), confidence[row][slots].tolist(), strict=True)
            ],
            result=tokens,
        )
