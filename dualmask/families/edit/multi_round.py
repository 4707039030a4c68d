"""All rounds (seed 000): a pure function from round state to round state, unrolled.

Each round reads the draft, decides (delete? what? how many masks where?), fills, and hands a new draft on. Labels come
from the alignment of each round's own draft with the target. Every module is called in every round by every rank, and
decisions are masks over the batch: ZeRO-3 allows nothing else.
"""

# B batch, T tokens, G gaps = T-1, K most masks a gap, M slots, N top tokens of a slot

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.families.edit import starts, stopping
from dualmask.families.edit.completion import Completion, Deletion, complete
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.decisions import Decision, decide_round
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.picker import COLDEST
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.soft_tokens import Drawn, draw_tokens
from dualmask.families.outputs import GateOut, RoundOut, RoundState
from dualmask.ops import deletion
from dualmask.ops.alignment import align, edit_distance
from dualmask.ops.gaps import gap_index

COUNTERS_PER_STEP = 64  # random streams of one optimizer step: one for each round


def copies(batch: Batch, samples: int) -> Batch:
    """Each sequence ``samples`` times, side by side, with a random key of its own for each copy (`reinforce`)."""
    if samples == 1:
        return batch
    number = torch.arange(samples, device=batch.key.device)
    key = noise.mix(batch.key[:, None] + number * 0x51ED).flatten()
    return Batch(batch.tokens.repeat_interleave(samples, 0), batch.length.repeat_interleave(samples), key)


def begin(batch: Batch, plan: EditPlan, typos: Tensor | None = None) -> RoundState:
    """The start states of a step. Copies of a text start alike."""
    how, stage = plan.stage.rollout, plan.stage
    start = starts.start_states(
        batch,
        plan.step,
        {str(kind): share for kind, share in how.starts.items()},
        _asked(batch, plan),
        stage.deletion.span_share,
        stage.deletion.mean_span,
        how.corruption,
        typos,
    )
    tokens, length, kind = (x.repeat_interleave(how.samples, 0) for x in (start.tokens, start.length, start.kind))
    return RoundState(
        tokens=tokens,
        length=length,
        kind=kind,
        sure=torch.ones(tokens.shape, device=tokens.device),
        done=torch.zeros_like(kind, dtype=torch.bool),
        digest=stopping.draft_digest(tokens, length)[:, None],
    )


def unroll(
    model: DualMask,
    state: RoundState,
    batch: Batch,
    plan: EditPlan,
    rounds: range,
    reference: Reference | None = None,
) -> tuple[RoundState, list[RoundOut]]:
    """The rounds ``rounds`` in a row. ``batch``: the targets, as the loader gave them."""
    target = copies(batch, plan.stage.rollout.samples)
    keep_rate = _asked(batch, plan).repeat_interleave(plan.stage.rollout.samples)
    outs = []
    for number in rounds:
        state, out = play(model, state, target, plan, number, keep_rate, reference)
        outs.append(out)
    return state, outs


def play(
    model: DualMask,
    state: RoundState,
    target: Batch,
    plan: EditPlan,
    number: int,
    asked: Tensor,
    reference: Reference | None = None,
) -> tuple[RoundState, RoundOut]:
    """Round ``number`` (from 0). asked [B]: keep rate of texts that are to be shortened in round 0.

    ``reference``: whose decisions on the same draft ours are compared with.
    """
    how, counter = plan.stage.rollout, plan.step * COUNTERS_PER_STEP + number
    draft = Batch(state.tokens, state.length, target.key)
    frozen = state.done & how.stop.in_training
    match = align(draft.tokens, draft.length, target.tokens, target.length)
    rewrite = (state.kind == starts.REWRITE) & (number == 0)
    keep_rate = torch.where(rewrite, asked, 1.0)
    x_BTD = model.embed(state.tokens, state.soft)
    reading = model.read(draft, keep_rate, state.sure, x_BTD)
    decision = decide_round(model.config, reading, draft, match, keep_rate, state.kind, plan, number, counter, ~frozen)
    theirs = None if reference is None else reference(x_BTD, draft, keep_rate, reading.opinion, state.sure)
    cut = Deletion(draft, x_BTD, match, draft.present & ~decision.deleted, decision.effective)
    on_policy = (noise.uniform(target.key, "own counts", counter) < how.on_policy_counts) & ~decision.compared
    done = _complete(model, cut, target, plan, counter, on_policy, ~frozen)
    gate = _compared(model, cut, target, plan, counter, decision, done, ~frozen)
    drawn = draw_tokens(model, done, target.key, plan, counter)
    counted = _count_log_prob(done, on_policy, plan.temperature)
    out = RoundOut(
        draft=draft.tokens,
        length=draft.length,
        match=match,
        deleted=decision.deleted,
        keep_rate=keep_rate,
        gap_count=done.holes.count,
        judged=_judged(cut, decision.deleted, done, on_policy),
        live=(~frozen).float(),
        restored=_restored(cut, decision.deleted, done),
        filler=done.filler,
        inserter=done.inserter,
        picker=decision.picker,
        gate=gate,
        log_prob={**decision.log_prob, "token": drawn.log_prob, "count": counted},
        cost=done.cost,
        divergence=None if theirs is None else decision.divergence(theirs, draft, keep_rate, plan.temperature),
    )
    silent = (decision.gate < 0.5) & ~decision.free  # nobody was asked whether there is something to edit
    return _advance(state, drawn, done, decision.deleted, silent, plan), out


def _complete(
    model: DualMask, cut: Deletion, target: Batch, plan: EditPlan, counter: int, on_policy: Tensor, open_gaps: Tensor
) -> Completion:
    how, stage = plan.stage.rollout, plan.stage
    gaps, counts = cut.keep.shape[1] - 1, model.config.max_gap_count + 1
    return complete(
        model,
        cut,
        target,
        on_policy=on_policy,
        temperature=torch.full_like(target.length, plan.temperature, dtype=torch.float32),
        gumbel=noise.gumbel(target.key, "count", counter, gaps, counts),
        open_gaps=open_gaps,
        kept_weight=stage.losses.kept_weight,
        reveal=stage.picker_gradient,
        count_gradient="inserter" in stage.train and how.count_estimator == "straight_through",
    )


@torch.no_grad()
def _other_cost(
    model: DualMask, cut: Deletion, target: Batch, plan: EditPlan, counter: int, rows: Tensor, keep: Tensor
) -> Tensor:
    """[b] cost of the rows [b] if the Gate had decided otherwise, with the masks where they are missing."""
    part = replace(cut, keep=keep).rows(rows)
    everywhere = torch.ones_like(rows, dtype=torch.bool)
    return _complete(model, part, target.rows(rows), plan, counter, ~everywhere, everywhere).cost


def _compared(
    model: DualMask,
    cut: Deletion,
    target: Batch,
    plan: EditPlan,
    counter: int,
    decision: Decision,
    done: Completion,
    live: Tensor,
) -> GateOut | None:
    """The Gate's decision with what both branches would have cost: the exact gradient of a binary gate."""
    if "gate" not in plan.stage.train:
        return None
    editing = decision.gate > 0.5
    cost = done.cost
    edit = generate = torch.zeros_like(cost)
    if plan.stage.gate_decides and plan.stage.rollout.gate_rows > 0:  # the same on every rank
        rows = decision.compared.nonzero().squeeze(1)
        rows = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=rows.device)  # called by every rank
        keep = cut.draft.present & ~(decision.wanted & ~editing[:, None])
        other = cost.index_copy(0, rows, _other_cost(model, cut, target, plan, counter, rows, keep))
        edit, generate = torch.where(editing, cost, other), torch.where(editing, other, cost)
    compared = decision.compared & live
    return GateOut(decision.gate_logit, decision.gate, decision.free & live, compared, edit, generate)


def _judged(cut: Deletion, deleted: Tensor, done: Completion, on_policy: Tensor) -> Tensor:
    """[B, T] bool: deleted tokens of whose hole it is known what belongs there."""
    gap = gap_index(cut.keep).clamp(0, done.holes.known.shape[1] - 1)
    return deleted & done.holes.known.gather(1, gap) & ~on_policy[:, None]


def _restored(cut: Deletion, deleted: Tensor, done: Completion) -> Tensor:
    """[B, T] at deleted tokens: the filler's probability of what belongs there. For a right token that is itself, for a
    wrong one the target token of the like-numbered slot of its hole, and 1 where the hole needs no token at all."""
    rows, width = cut.keep.shape
    prob = torch.zeros(rows * width, device=cut.keep.device)
    prob = prob.index_copy(0, done.filler.slot, done.filler.target_prob.float() * (done.goal >= 0)).view(rows, width)
    gap = gap_index(cut.keep).clamp(0, width - 2)
    count = done.count.gather(1, gap)
    place = torch.arange(width, device=gap.device)
    behind = torch.where(cut.keep, place, 0).cummax(1).values  # the kept token in front of the hole
    turn = torch.minimum(place - behind - 1, count - 1)
    turn = torch.where(cut.match >= 0, cut.match - done.holes.first.gather(1, gap), turn)
    slot = gap + (done.count.cumsum(1) - done.count).gather(1, gap) + 1 + turn
    found = prob.gather(1, slot.clamp(0, width - 1)) * ((turn >= 0) & (turn < count))
    return torch.where(done.holes.count.gather(1, gap) == 0, 1.0, found) * deleted


def _count_log_prob(done: Completion, on_policy: Tensor, temperature: float) -> Tensor:
    """[B] log-probability of the counts that the inserter drew for itself, at the temperature of the draw."""
    logits = done.inserter.gap_logits / max(temperature, COLDEST)
    log_prob = logits.log_softmax(-1).gather(-1, done.count[..., None]).squeeze(-1)
    return (log_prob * done.inserter.gap_present).sum(1) * on_policy


def _advance(
    state: RoundState, drawn: Drawn, done: Completion, deleted: Tensor, silent: Tensor, plan: EditPlan
) -> RoundState:
    """The state behind the round, with the stop criteria applied per sample.

    silent [B] bool: an unchanged text says nothing, because editing was ruled out for it.
    """
    stop, length = plan.stage.rollout.stop, done.masked.length
    digest = stopping.draft_digest(drawn.tokens, length)
    distance = torch.ones_like(drawn.confidence)
    if stop.edit_distance is not None:
        distance = edit_distance(state.tokens, state.length, drawn.tokens, length)
    changed = deleted.any(1) | (done.count.sum(1) > 0)
    reason = stopping.reasons(
        stop, changed=changed, digest=digest, seen=state.digest, confidence=drawn.confidence, distance=distance
    )
    finished = (reason != stopping.Reason.NONE) & (changed | ~silent)
    return RoundState(
        tokens=drawn.tokens,
        length=length,
        kind=state.kind,
        sure=torch.where(done.masked.is_mask, drawn.sure, state.sure.gather(1, done.source.clamp_min(0))),
        done=state.done | finished,
        digest=torch.cat([state.digest, digest[:, None]], dim=1),
        soft=drawn.soft,
    )


def _asked(batch: Batch, plan: EditPlan) -> Tensor:
    return deletion.keep_rates(batch.key, plan.step, plan.keep_rate_low, plan.keep_rate_high)
