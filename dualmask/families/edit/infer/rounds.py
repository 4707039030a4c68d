"""One round as a function from drafts to drafts: delete, count, open, fill (method.md §1). Knows ids and budgets."""

# N drafts, L places, G gaps, R regions, V vocabulary, M slots of one forward

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import present
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.infer.budget import Budget
from dualmask.families.edit.infer.drafts import Drafts
from dualmask.families.edit.infer.regions import gather_regions
from dualmask.families.edit.infer.request import Round
from dualmask.families.edit.infer.windows import WindowedModel
from dualmask.families.edit.picker import decide
from dualmask.families.edit.stopping import fill_confidence
from dualmask.ops import allocate, sampling
from dualmask.ops.gaps import Skeleton, gap_rate

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Played:
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


class RoundPlayer:
    """Plays rounds on a model. All drafts of a call are in the same round of their requests."""

    def __init__(self, model: WindowedModel, lexicon: Lexicon, device: torch.device) -> None:
        self.model = model
        self.lexicon = lexicon
        self.device = device

    def play(self, drafts: Drafts, budgets: Sequence[Budget]) -> Played:
        """One round. Closes it in the budgets."""
        deleted, gate = self._deleted(drafts, budgets)
        keep = drafts.present & ~deleted
        skeletons = drafts.drop(keep)
        count, opened = self._counts(skeletons, budgets, deleted.sum(1).tolist())
        masked, slots = skeletons.open(count)
        filled, confidence = self._fill(masked, slots, budgets)
        after = replace(masked, tokens=filled, sure=torch.where(slots, confidence, masked.sure))
        for budget, lost, grown in zip(budgets, deleted.sum(1).tolist(), opened, strict=True):
            budget.close_round(lost, grown)
        return Played(
            drafts=after,
            changed=deleted.any(1) | slots.any(1),
            confidence=fill_confidence(confidence, slots),
            rounds=list(_trace(gate.tolist(), drafts, keep, count, after, slots, confidence)),
        )

    def deletable(self, drafts: Drafts) -> Tensor:
        """[N, L] bool: what may be deleted; of a character that is made of several bytes the first."""
        return drafts.deletable & ~self.lexicon.continuation[drafts.tokens]

    def _deleted(self, drafts: Drafts, budgets: Sequence[Budget]) -> tuple[Tensor, Tensor]:
        """[N, L] bool: the picker's choice where Gate and budget allow one; and [N] the probability of editing.

        The bytes of a character go with its first one, and count as one token.
        """
        deletable = self.deletable(drafts)
        places = deletable.sum(1)
        number = [budget.deletions(most) for budget, most in zip(budgets, places.tolist(), strict=True)]
        forced = self._tensor([math.nan if budget.gate is None else budget.gate for budget in budgets])
        if not any(number) and None not in number:
            return torch.zeros_like(deletable), forced
        keep_rate = 1 - self._tensor([most or 0 for most in number]) / places.clamp_min(1)  # 1: what is wrong
        reading = self.model.read(drafts.tokens, drafts.length, keep_rate, drafts.sure)
        threshold = self._tensor([budget.request.edit_threshold for budget in budgets])
        logits = replace(reading.logits, wrong=reading.logits.wrong - torch.logit(threshold, eps=1e-6)[:, None])
        heat = self._tensor([budget.request.sampling.place_temperature for budget in budgets])
        spread = noise.logistic(drafts.key, "pick", budgets[0].round, deletable.shape[1])
        chosen = decide(self.model.config, logits, deletable, keep_rate, spread, heat[:, None])
        edits, gate = self._gate(reading.gate_logit, drafts.length, forced, budgets)
        chosen &= edits & self._tensor([most != 0 for most in number], torch.bool)[:, None]
        return chosen.gather(1, self._first_byte(drafts.tokens)), gate

    def _gate(self, logit: Tensor, length: Tensor, forced: Tensor, budgets: Sequence[Budget]) -> tuple[Tensor, Tensor]:
        """[N, L] bool: may be edited; [N] the probability of that: a long draft's is that of its worst window.

        logit [N, L]: the Gate's on the window in which a token stands; forced [N]: a decision, or NaN.
        """
        prob = torch.where(forced.isnan()[:, None], torch.sigmoid(logit), forced[:, None])
        threshold = self._tensor([budget.request.gate_threshold for budget in budgets])
        edits = torch.where(forced.isnan()[:, None], prob > threshold[:, None], forced[:, None] > 0)
        read = present(length - 1, logit.shape[1])  # EOS stands in no core
        return edits, prob.masked_fill(~read, 0.0).amax(1)

    def _first_byte(self, tokens: Tensor) -> Tensor:
        """[N, L] the place of the token that begins the character in which this one stands."""
        place = torch.arange(tokens.shape[1], device=self.device)
        return torch.where(self.lexicon.continuation[tokens], 0, place).cummax(1).values

    def _counts(
        self, skeletons: Drafts, budgets: Sequence[Budget], lost: Sequence[int]
    ) -> tuple[Tensor, list[dict[int, int]]]:
        """[N, G] masks per gap, placed where they are most likely within each region's total; and these totals."""
        open_gaps = skeletons.open_gaps(self.lexicon) & self._tensor([b.opens for b in budgets], torch.bool)[:, None]
        opened: list[dict[int, int]] = [{} for _ in budgets]
        if not open_gaps.any():
            return torch.zeros_like(open_gaps, dtype=torch.long), opened
        expected = [n + sum(b.due(region) or 0 for region in b.regions) for b, n in zip(budgets, lost, strict=True)]
        skeleton = Skeleton(skeletons.tokens, skeletons.length)
        logits = self.model.gap_logits(skeleton, self._tensor(expected))
        heat = self._tensor([budget.request.sampling.place_temperature for budget in budgets])
        gumbel = noise.gumbel(skeletons.key, "count", budgets[0].round, *logits.shape[1:])
        score = allocate.count_scores(logits, heat, gumbel)
        regions = gather_regions(skeletons.region[:, :-1], open_gaps)
        likely = regions.take(allocate.most_likely(score, open_gaps)).sum(1).tolist()
        rate = regions.take(gap_rate(logits, open_gaps)).sum(1).tolist()
        owners = list(zip(regions.row.tolist(), regions.region.tolist(), strict=True))
        total = [budgets[n].masks(r, lost[n], likely[i], rate[i]) for i, (n, r) in enumerate(owners)]
        count = allocate.exact_total(regions.take(score), regions.exists, self._tensor(total, torch.long))
        for (row, region), number in zip(owners, count.sum(1).tolist(), strict=True):
            opened[row][region] = number
        return regions.put(count, open_gaps.shape), opened

    def _fill(self, masked: Drafts, slots: Tensor, budgets: Sequence[Budget]) -> tuple[Tensor, Tensor]:
        """(ids, confidence) [N, L]: fills the slots, the most confident first where several steps are asked for."""
        params = sampling.SamplingBatch.of([budget.request.sampling for budget in budgets], self.device)
        tokens, opened = masked.tokens, slots
        confidence = torch.ones(tokens.shape, device=self.device)
        for step in range(int(params.fill_steps.max())):
            if not opened.any():
                break
            choose = self._chooser(masked, slots, budgets, step)
            tokens, new_confidence = self.model.fill(tokens, masked.length, opened, choose)
            confidence = torch.where(opened, new_confidence, confidence)
            again = sampling.still_open(slots.sum(1), step, params.fill_steps)
            opened = sampling.least_confident(confidence, torch.where(params.remask[:, None], slots, opened), again)
            tokens = torch.where(opened, MASK_ID, tokens)
        return tokens, confidence

    def _chooser(self, masked: Drafts, slots: Tensor, budgets: Sequence[Budget], step: int) -> Choose:
        """``choose(logits [M, V], slot [M])`` for one fill step; slot: index into the flattened [N·L]."""
        width = slots.shape[1]
        uniform = noise.uniform(masked.key, f"fill {step}", budgets[0].round, width).flatten()
        spaced = torch.nn.functional.pad(masked.spaced[:, :-1], (1, 0)).flatten()
        params = sampling.SamplingBatch.of([budget.request.sampling for budget in budgets], self.device)

        def choose(logits: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
            allowed = self.lexicon.writable & (self.lexicon.begins_space | ~spaced[slot][:, None])
            return sampling.choose(logits, allowed, uniform[slot], params.rows(slot // width))

        return choose

    def _tensor(self, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=dtype)


def _trace(
    gate: Sequence[float], before: Drafts, keep: Tensor, count: Tensor, after: Drafts, slots: Tensor, confidence: Tensor
) -> Iterator[Round]:
    """The round of each draft as plain lists."""
    lengths, new_lengths = before.length.tolist(), after.length.tolist()
    for row, (length, new_length) in enumerate(zip(lengths, new_lengths, strict=True)):
        kept = keep[row, :length].nonzero().squeeze(1)
        places = slots[row].nonzero().squeeze(1)
        gaps = count[row].nonzero().squeeze(1)
        result = after.tokens[row, :new_length].tolist()
        yield Round(
            gate=gate[row],
            draft=before.tokens[row, :length].tolist(),
            deleted=(~keep[row, :length]).nonzero().squeeze(1).tolist(),
            inserted=list(zip(kept[gaps].tolist(), count[row][gaps].tolist(), strict=True)),
            filled=[
                (place, result[place], sure)
                for place, sure in zip(places.tolist(), confidence[row][places].tolist(), strict=True)
            ],
            result=result,
        )
