"""The second half of a round: from a draft and what is kept of it to a text without holes (method.md §1).

skeleton → inserter → [MASK]s in place → filler, together with the labels that the alignment with the target gives.
"""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots, D width

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.batch import Batch, present
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.model import DualMask
from dualmask.families.outputs import InserterOut
from dualmask.nn.token_losses import FillerOut, scored
from dualmask.ops import allocate, gaps
from dualmask.ops.alignment import Holes, holes, within

UNRESTORED = 0.02  # the probability that a missing token, or one too many, is worth


@dataclass(frozen=True)
class Deletion:
    """What a round keeps of its draft, and how the decision hands gradients on."""

    draft: Batch
    x_BTD: Tensor  # embeddings of the draft
    match: Tensor  # [B, T] place in the target, -1: wrong
    keep: Tensor  # [B, T] bool, False on padding
    effective: Tensor | None = None  # [B, T] float 1 − g·(1 − m) with the estimators' gradients

    def rows(self, index: Tensor) -> Deletion:
        return Deletion(self.draft.rows(index), self.x_BTD[index], self.match[index], self.keep[index])


@dataclass(frozen=True)
class Completion:
    inserter: InserterOut
    filler: FillerOut
    holes: Holes  # what is really missing in each gap of the skeleton
    masked: gaps.Masked
    count: Tensor  # [B, G] masks opened
    source: Tensor  # [B, T] draft place of each place's token; of a mask that of the token deleted there, or -1
    goal: Tensor  # [M] place in the target of each slot's token, -1: not known
    cost: Tensor  # [B] nats a target token, detached (see ``text_cost``)


def complete(
    model: DualMask,
    deletion: Deletion,
    target: Batch,
    *,
    on_policy: Tensor,
    temperature: Tensor,
    gumbel: Tensor,
    open_gaps: Tensor,
    kept_weight: float = 0.0,
    reveal: float = 0.0,
    count_gradient: bool = False,
) -> Completion:
    """Counts, opens and fills the holes of the skeletons.

    on_policy [B] bool: masks as the inserter draws them, not as many as are missing
    temperature [B], gumbel [B, G, K+1]: of these draws
    open_gaps [B] bool: False leaves the text as it is
    reveal     share of the reconstruction gradient that reaches the decision to delete
    """
    draft, keep = deletion.draft, deletion.keep
    width = draft.tokens.shape[1]
    place = torch.arange(width, device=keep.device)
    packed = gaps.drop(place.expand_as(keep), keep)  # skeleton place → draft place
    skeleton = gaps.Skeleton(gaps.drop(draft.tokens, keep).tokens, packed.length)
    inserter = model.count(skeleton, _take(deletion.x_BTD, packed.tokens))
    missing = holes(deletion.match, keep)
    score = allocate.count_scores(inserter.gap_logits.detach(), temperature, gumbel)
    most = inserter.gap_logits.shape[-1] - 1
    count = torch.where(on_policy[:, None], allocate.most_likely(score, inserter.gap_present), missing.count)
    # a longer hole opens over several rounds, from the left
    count = within(count.clamp_max(most) * open_gaps[:, None], width - skeleton.length)
    masked = gaps.insert(skeleton, count, width)
    source, rank = _sources(masked, packed.tokens)
    x_BTD = _masked_embeddings(model, deletion, masked, source, reveal)
    position = gaps.contiguous_positions(masked.tokens)
    if count_gradient:
        rate = gaps.gap_rate(inserter.gap_logits, inserter.gap_present)
        position = gaps.straight_through_positions(~masked.is_mask, rate)
    slot = (masked.is_mask if kept_weight == 0 else _inner(masked)).flatten().nonzero().squeeze(1)
    logits, _ = model.filler(x_BTD, position, present(masked.length, width), slot, model.table)
    goal = _goals(masked, missing, count, rank, deletion.match, source, most).flatten()[slot]
    is_mask = masked.is_mask.flatten()[slot]
    weight = torch.where(is_mask, 1.0, kept_weight) * (goal >= 0)
    row = slot // width
    wanted = target.tokens[row, goal.clamp_min(0)]
    filler = scored(logits, slot, weight, wanted)
    gap = masked.gap.flatten()[slot].clamp_max(count.shape[1] - 1)
    right_count = inserter.gap_logits.detach().softmax(-1).gather(-1, count[..., None]).squeeze(-1)
    found = right_count[row, gap]
    hit = is_mask & (goal >= 0)
    cost = text_cost(deletion, target, row, filler.target_prob * found, hit)
    return Completion(inserter, filler, missing, masked, count, source, goal, cost)


def text_cost(deletion: Deletion, target: Batch, row: Tensor, prob: Tensor, hit: Tensor) -> Tensor:
    """[B] copy-or-fill likelihood of the text that comes out, as nats a token of the target.

    A right token that is kept costs nothing, a slot with probability p of its token (place included) −log(p + ε), a
    missing token without a slot and a wrong one that is kept −log ε each. row, prob, hit [M]: the slots; only those
    that ``hit`` count (choosing them would make the host wait for the device).
    """
    size = len(target.length)
    right = deletion.keep & (deletion.match >= 0)
    wrong = (deletion.keep & (deletion.match < 0)).sum(1)
    slots = torch.zeros(size, device=prob.device).index_add(0, row, hit.to(prob.dtype))
    filled = torch.zeros(size, device=prob.device).index_add(0, row, -torch.log(prob + UNRESTORED) * hit)
    missing = (target.length - right.sum(1) - slots).clamp_min(0)
    return (filled - (missing + wrong) * math.log(UNRESTORED)) / target.length


def _take(x_BTD: Tensor, index: Tensor) -> Tensor:
    """[B, T, D] the states at the places ``index`` [B, T]."""
    return x_BTD.gather(1, index[..., None].expand(-1, -1, x_BTD.shape[-1]))


def _inner(masked: gaps.Masked) -> Tensor:
    place = torch.arange(masked.tokens.shape[1], device=masked.tokens.device)
    return (place > 0) & (place < masked.length[:, None] - 1)


def _sources(masked: gaps.Masked, packed: Tensor) -> tuple[Tensor, Tensor]:
    """For each place of the masked sequence: the draft place of its token, for the r-th mask of a gap that of the r-th
    token deleted there, or -1; and r. Tokens deleted from one gap stood side by side."""
    width = masked.tokens.shape[1]
    place = torch.arange(width, device=packed.device)
    start = torch.where(masked.is_mask, 0, place).cummax(1).values
    rank = place - start - 1
    gap = masked.gap.clamp(0, width - 1)
    here, behind = packed.gather(1, gap), packed.gather(1, (gap + 1).clamp_max(width - 1))
    lost = here + 1 + rank
    return torch.where(masked.is_mask, torch.where(lost < behind, lost, -1), here), rank


def _masked_embeddings(
    model: DualMask, deletion: Deletion, masked: gaps.Masked, source: Tensor, reveal: float
) -> Tensor:
    """[B, T, D]: kept tokens with whatever gradient they carry, [MASK]s, and the in-place straight-through term."""
    own = _take(deletion.x_BTD, source.clamp_min(0))
    mask = model.table(torch.full_like(masked.tokens, MASK_ID))
    x_BTD = torch.where(masked.is_mask[..., None], mask, own)
    if reveal == 0 or deletion.effective is None:
        return x_BTD
    decision = deletion.effective.gather(1, source.clamp_min(0))
    change = torch.where(source >= 0, decision - decision.detach(), 0.0)
    return x_BTD + reveal * change[..., None].to(x_BTD.dtype) * (own - mask).detach()


def _goals(
    masked: gaps.Masked, missing: Holes, count: Tensor, rank: Tensor, match: Tensor, source: Tensor, most: int
) -> Tensor:
    """[B, T] place in the target that belongs at each place of the masked sequence; -1: not known."""
    gap = masked.gap.clamp(0, count.shape[1] - 1)
    right = missing.known & (count == missing.count.clamp_max(most)) & (count > 0)
    goal = torch.where(right.gather(1, gap), missing.first.gather(1, gap) + rank, -1)
    kept = match.gather(1, source.clamp_min(0))
    inside = _inner(masked)
    return torch.where(masked.is_mask, goal, torch.where(inside, kept, -1))
