"""DualMaskLM (method.md §1): picker, inserter, filler and Gate over one token table, and what each says of a batch.

``model(batch, plan)`` is the training of the stages in which nobody picks: random holes, to be counted and filled. How
the parts play a round together stands in ``families/edit/round.py``.
"""

# B batch, T tokens, G gaps = T-1, D width, M slots

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualmask.core import noise
from dualmask.core.batch import Batch, present
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.filler import Filler
from dualmask.families.edit.gate import Gate, statistics
from dualmask.families.edit.inserter import Inserter
from dualmask.families.edit.masked_lm import MaskedLMScores, masked_lm_scores
from dualmask.families.edit.outputs import Doubt, InserterOut, PickerOut, RoundOut, SoftTokens
from dualmask.families.edit.picker import DeleteLogits, Picker, decide, describe
from dualmask.families.edit.prepared import HolesBatch, with_holes
from dualmask.families.edit.told import ToldGaps, hints, no_hints
from dualmask.nn.parallel.vocabulary import TokenTable, target_and_best_nll
from dualmask.nn.token_losses import ScoredSlots, scored, slots
from dualmask.ops import gaps
from dualmask.ops.alignment import Holes, holes


@dataclass(frozen=True)
class DraftScores:
    """What the model says of a draft before anything is decided."""

    masked_lm: MaskedLMScores
    logits: DeleteLogits
    gate_logit: Tensor  # [B] log-odds that the round should edit


class DualMask(nn.Module):
    def __init__(self, config: EditConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.table = TokenTable(vocab_size, config.hidden, std=config.init_std)
        self.filler = Filler(config, activation_checkpointing=activation_checkpointing)
        self.inserter = Inserter(config, activation_checkpointing=activation_checkpointing)
        self.picker = Picker(config, activation_checkpointing=activation_checkpointing)
        self.gate = Gate(config)

    def forward(self, batch: Batch, plan: EditPlan) -> RoundOut:
        """One round with random holes, all in place: deletion, counts and targets are known.

        A batch that was not prepared for it gets holes in its own texts, and makes the host wait for them.
        """
        given = batch if isinstance(batch, HolesBatch) else with_holes(batch, batch, plan)
        draft, match, deleted, keep_rate = given.start, given.match, given.deleted, given.keep_rate
        keep = draft.present & ~deleted
        missing = holes(match, keep)
        inserter = self.count(gaps.drop(draft.tokens, keep)) if "inserter" in plan.stage.train else None
        filler, doubt = None, None
        if plan.loss_weight["recon"] > 0:
            goal = goals_in_place(match, keep, deleted, missing)
            filler, wrong_logit = self._fill_in_place(given, draft, plan, goal, inserter)
            doubt = Doubt(wrong_logit, match < 0, draft.deletable & ~deleted)
        return RoundOut(
            draft=draft.tokens,
            length=draft.length,
            match=match,
            deleted=deleted,
            keep_rate=keep_rate,
            gap_count=missing.count,
            judged=torch.zeros_like(deleted),
            restored=torch.zeros_like(keep_rate)[:, None].expand(deleted.shape),
            live=torch.ones_like(keep_rate),
            filler=filler,
            doubt=doubt,
            inserter=inserter,
        )

    def read(
        self,
        batch: Batch,
        keep_rate: Tensor,
        written_prob: Tensor | None = None,
        x_BTD: Tensor | None = None,
        deletable: int | None = None,
    ) -> DraftScores:
        """Filler, picker and Gate on a draft. keep_rate [B]: requested share kept; 1: delete what is wrong only.

        written_prob [B, T]: probability with which an earlier round wrote each token, 1 (or None) where it was given.
        ``x_BTD``: the draft's embeddings where they carry a gradient. deletable: tokens between BOS and EOS of all
        texts; None: the host waits to know it.
        """
        if written_prob is None:
            written_prob = torch.ones(batch.tokens.shape, device=batch.tokens.device)
        x_BTD = self.table(batch.tokens) if x_BTD is None else x_BTD
        masked_lm = self._masked_lm(batch, deletable)
        return judge(self.picker, self.gate, x_BTD, batch, keep_rate, masked_lm, written_prob)

    def pick(self, batch: Batch, keep_rate: Tensor, *, step: int, temperature: float) -> PickerOut:
        """The picker's deletion of ``batch`` at the requested keep rates [B]."""
        logits = self.read(batch, keep_rate).logits
        logistic_noise = noise.logistic(batch.key, "pick", step, batch.tokens.shape[1])
        deleted = decide(self.config, logits, batch.deletable, keep_rate, logistic_noise, temperature)
        return describe(self.config, logits, deleted, batch.deletable, keep_rate, logistic_noise, temperature)

    def embed(self, tokens: Tensor, soft: SoftTokens | None = None) -> Tensor:
        """[B, T, D]. With ``soft`` the drawn tokens hand their gradient on to the distribution they were drawn from."""
        x_BTD = self.table(tokens)
        if soft is None:
            return x_BTD
        change = soft.weight - soft.weight.detach()  # zero forward
        mixed = torch.einsum("mn,mnd->md", change.to(x_BTD.dtype), self.table(soft.token).detach())
        return x_BTD.flatten(0, 1).index_add(0, soft.slot, mixed).view_as(x_BTD)

    def count(self, skeleton: gaps.Skeleton, x_BTD: Tensor | None = None, told: ToldGaps | None = None) -> InserterOut:
        """told: of each gap what was deleted where that is known, its pieces as embeddings (see ``Inserter``)."""
        return self.inserter(self.table(skeleton.tokens) if x_BTD is None else x_BTD, skeleton.length, told)

    def fill(self, tokens: Tensor, length: Tensor, slot: Tensor, replaced: Tensor | None = None) -> Tensor:
        """[M, V / tensor] logits at the slots [M] (flattened positions) of tokens [B, W] that hold [MASK]s.

        replaced [B, W, 1 + P]: at a [MASK] the deleted token for which it stands, and the first P deleted from its gap;
        -1 where that is not known or there is none.
        """
        told = None if replaced is None else hints(self.recall(replaced))
        position = gaps.contiguous_positions(tokens)
        return self.filler(
            self.table(tokens), position, present(length, tokens.shape[1]), slot, self.table, told
        ).logits

    def recall(self, deleted: Tensor) -> Tensor:
        """[…, D] embeddings of deleted tokens […]; 0 where they are not told (-1)."""
        return self.table(deleted.clamp_min(0)) * (deleted >= 0)[..., None]

    def look(self, tokens: Tensor, length: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
        """``fill``, and the filler's states [B, W, D]."""
        position = gaps.contiguous_positions(tokens)
        out = self.filler(self.table(tokens), position, present(length, tokens.shape[1]), slot, self.table)
        return out.logits, out.states

    def _masked_lm(self, batch: Batch, deletable: int | None) -> MaskedLMScores:
        """Without probes the probability is 0.5 everywhere, which says nothing."""
        if self.config.picker_probes:
            return masked_lm_scores(self.look, target_and_best_nll, batch, self.config.picker_probes, deletable)
        even = torch.full(batch.tokens.shape, 0.5, device=batch.tokens.device)
        return MaskedLMScores(even, even, None)

    def _fill_in_place(
        self, given: HolesBatch, draft: Batch, plan: EditPlan, goal: Tensor, inserter: InserterOut | None
    ) -> tuple[ScoredSlots, Tensor]:
        """The filler's answers at the deleted tokens, and its doubts [B, T] about the others. goal [B, T]: position in
        the target of what belongs at each place, -1: not known."""
        deleted = given.deleted
        masked = draft.tokens.masked_fill(deleted, MASK_ID)
        position = gaps.contiguous_positions(masked)
        if inserter is not None:
            rate = gaps.gap_rate(inserter.gap_logits, inserter.gap_present)
            position = gaps.straight_through_positions(draft.present & ~deleted, rate)
        kept_weight = plan.stage.losses.kept_weight
        slot = slots(deleted, given.holes) if kept_weight == 0 else slots(draft.deletable, given.deletable_tokens)
        place, row = goal.flatten()[slot], slot // goal.shape[1]
        weight = torch.where(deleted.flatten()[slot], 1.0, kept_weight) * (place >= 0)
        x_BTD = self.table(masked)
        untold = no_hints(x_BTD, self.config.told_pieces)
        out = self.filler(x_BTD, position, draft.present, slot, self.table, untold, lengths=draft.lengths)
        return scored(out.logits, slot, weight, given.tokens[row, place.clamp_min(0)]), out.wrong_logit


def goals_in_place(match: Tensor, keep: Tensor, deleted: Tensor, missing: Holes) -> Tensor:
    """[B, T] position in the target of what belongs where each token of the draft stands, -1: not known.

    In place the r-th deleted token of a gap and its r-th [MASK] are one slot; what belongs there is known if the gap
    needs as many tokens as were deleted from it.
    """
    gap = gaps.gap_index(keep).clamp(0, missing.count.shape[1] - 1)
    position = torch.arange(keep.shape[1], device=keep.device)
    rank = position - torch.where(keep, position, 0).cummax(1).values - 1
    right = missing.known & (missing.count == gaps.gap_counts(keep, deleted))
    opened = torch.where(right.gather(1, gap), missing.first.gather(1, gap) + rank, -1)
    return torch.where(deleted, opened, match)


def judge(
    picker: nn.Module,
    gate: nn.Module,
    x_BTD: Tensor,
    batch: Batch,
    keep_rate: Tensor,
    masked_lm: MaskedLMScores,
    written_prob: Tensor,
) -> DraftScores:
    """Picker and Gate on a draft whose masked-LM scores are known. Where the filler has not read it, the Gate looks at
    the picker's states."""
    logits, states = picker(x_BTD, batch, keep_rate, masked_lm, written_prob)
    features = statistics(logits, masked_lm.prob, written_prob, batch.deletable)
    pooled = masked_lm.pooled
    if pooled is None:
        pooled = (states.detach() * batch.present[..., None]).sum(1) / batch.length[:, None]
    return DraftScores(masked_lm, logits, gate(pooled, features))
