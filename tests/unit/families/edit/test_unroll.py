"""Laws of the rounds on random weights: what must hold before anything is learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_rounds import EVERY_LOSS, VOCAB, WIDTH, make_batch, make_model, make_plan, rounds_plan

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.curriculum import StepPlan
from dualmask.families.edit import starts
from dualmask.families.edit.losses.total import round_loss
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.task import begin, train_round, unroll
from dualmask.ops import deletion

ROWS = 24
GATED = {"gate": 1.0}
LABELS_ONLY = {"on_policy_counts": 0.0, "teacher_forced_deletions": 1.0}  # all is done as the alignment says


def unrolled(model: DualMask, batch: Batch, plan: StepPlan) -> tuple[RoundState, list[RoundOut]]:
    return unroll(model, begin(batch, plan), batch, plan, range(plan.rounds))


def play(model: DualMask, batch: Batch, plan: StepPlan, state: RoundState | None = None, number: int = 0):
    asked = deletion.keep_rates(batch.key, plan.step, plan.keep_rate_low, plan.keep_rate_high)
    return train_round(model, state or begin(batch, plan), batch, plan, number, asked)


def only(kind: str) -> dict[str, dict[str, float]]:
    return {"starts": {name: float(name == kind) for name in starts.KINDS}}


def test_every_draft_is_a_whole_text_and_every_loss_finite():
    model, batch, plan = make_model(), make_batch(ROWS), rounds_plan()
    state, outs = unrolled(model, batch, plan)
    for out, after in zip(outs, [*(Batch(o.draft, o.length, batch.key) for o in outs[1:]), state], strict=True):
        assert not (out.deleted & ~Batch(out.draft, out.length, batch.key).deletable).any()
        inside = Batch(after.tokens, after.length, batch.key)
        assert (inside.tokens[:, 0] == BOS_ID).all()
        assert (inside.tokens.gather(1, inside.length[:, None] - 1) == EOS_ID).all()
        assert (inside.tokens[~inside.present] == PAD_ID).all()
        inner = inside.tokens[inside.deletable]
        assert ((inner > MASK_ID) & (inner < VOCAB) & (inner != EOS_ID)).all()
        report = round_loss(out, plan)
        assert set(EVERY_LOSS) | {"gate", "gate_cost"} <= set(report.parts)
        assert torch.isfinite(torch.stack([report.total, *report.parts.values()])).all()
    assert state.digest.shape == (ROWS, 5)
    assert set(state.kind.tolist()) == set(range(len(starts.KINDS)))


def test_texts_do_not_depend_on_companions_or_padding():
    """Four whole rounds: each text alone, and with rubbish behind every text."""
    model, batch, plan = make_model(), make_batch(), rounds_plan(step=1)
    rubbish = replace(batch, tokens=torch.where(batch.present, batch.tokens, 77))
    (state, whole), (_, other) = (unrolled(model, x, plan) for x in (batch, rubbish))
    alone = [unrolled(model, batch.rows(slice(row, row + 1)), plan) for row in range(len(batch.length))]
    for row, (mine, _) in enumerate(alone):
        assert torch.equal(mine.tokens[0], state.tokens[row])
    for number, out in enumerate(whole):
        assert torch.equal(out.deleted, other[number].deleted)
        torch.testing.assert_close(out.filler.logits, other[number].filler.logits, rtol=0, atol=1e-5)
        mine = [outs[number] for _, outs in alone]
        assert torch.equal(torch.cat([one.deleted for one in mine]), out.deleted)
        for value in (lambda o: o.picker.delete_logit * (o.draft > 0), lambda o: o.gate.logit, lambda o: o.cost):
            torch.testing.assert_close(torch.cat([value(one) for one in mine]), value(out), rtol=0, atol=1e-4)
        logits = torch.cat([one.filler.logits for one in mine])
        torch.testing.assert_close(logits, out.filler.logits, rtol=0, atol=1e-4)
    assert torch.cat([out.deleted for out in whole]).any()


def test_the_labels_lead_from_a_skeleton_back_to_the_text():
    """As many slots as are missing, each with its own target: filled with these nothing is left to do."""
    model, batch = make_model(), make_batch(ROWS)
    state, out = play(model, batch, rounds_plan(**only("skeleton"), **LABELS_ONLY))
    assert (out.match[Batch(out.draft, out.length, batch.key).present] >= 0).all()
    assert torch.equal(out.gap_count.sum(1), batch.length - out.length)
    short = (out.gap_count <= model.config.max_gap_count).all(1)
    assert short.any()
    filled = state.tokens.flatten().index_copy(0, out.filler.slot, out.filler.target).view_as(state.tokens)
    assert torch.equal(filled[short], batch.tokens[short])


@pytest.mark.parametrize(("first", "kind", "edits"), [("generate", "corrupted", False), ("gate", "rewrite", True)])
def test_the_first_round_generates_unless_the_text_is_to_be_shortened(first: str, kind: str, edits: bool):
    model, batch = make_model(), make_batch(ROWS)
    _, out = play(model, batch, rounds_plan(first_round=first, **only(kind)))
    assert not out.gate.free.any()
    assert bool(out.deleted.any()) is edits
    asked = deletion.budget(batch.deletable, out.keep_rate)
    assert torch.equal(out.deleted.sum(1), asked * edits)


def test_before_the_gate_learns_the_start_state_decides():
    model, batch = make_model(), make_batch(ROWS)
    plan = make_plan(train=["filler", "inserter", "picker"], rollout={"rounds": 2, "teacher_forced_deletions": 1.0})
    _, out = play(model, batch, plan)
    assert out.gate is None
    wrong = (out.match < 0) & Batch(out.draft, out.length, batch.key).deletable
    assert torch.equal(out.deleted & (out.keep_rate == 1)[:, None], wrong)


def forced(model: DualMask, way: float) -> DualMask:
    with torch.no_grad():
        model.gate.decide.bias.fill_(way * 1e4)
    return model


def test_the_costs_compared_are_those_of_the_gate_forced_open_and_closed():
    """On round 1 of four: its drafts are the model's own."""
    batch, plan = make_batch(ROWS), rounds_plan(gate_rows=0.6, step=2)
    model = make_model()
    state, _ = play(model, batch, plan)
    _, out = play(model, batch, plan, state, 1)
    _, opened = play(forced(model, +1), batch, plan, state, 1)
    _, closed = play(forced(model, -1), batch, plan, state, 1)
    compared = out.gate.compared
    assert compared.any()
    assert not compared.all()
    assert torch.equal(opened.gate.compared, compared)
    assert (opened.gate.value[compared] == 1).all()
    assert (closed.gate.value[compared] == 0).all()
    torch.testing.assert_close(out.gate.cost_edit[compared], opened.cost[compared], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.gate.cost_generate[compared], closed.cost[compared], rtol=1e-5, atol=1e-6)
    assert (out.gate.cost_edit != out.gate.cost_generate)[compared].any()
    chosen = torch.where(out.gate.value > 0.5, out.gate.cost_edit, out.gate.cost_generate)
    assert torch.equal(chosen[compared], out.cost[compared])


def test_comparing_changes_no_decision_of_the_others():
    model, batch = make_model(), make_batch(ROWS)
    drafts = [
        unrolled(model, batch, rounds_plan(gate_rows=rows, on_policy_counts=0.0))[0].tokens for rows in (0.0, 0.5, 1.0)
    ]
    assert torch.equal(drafts[0], drafts[1])
    assert torch.equal(drafts[0], drafts[2])


@pytest.mark.parametrize("kind", ["clean", "empty"])
def test_a_batch_without_a_single_slot_still_teaches_every_module(kind: str):
    """Nothing deleted and nothing missing: no [MASK] anywhere. ZeRO-3 needs a gradient all the same, if only zeros."""
    model = make_model()
    length = 2 if kind == "empty" else 20
    batch = Batch(make_batch().tokens, torch.full((6,), length), torch.arange(6))
    tokens = torch.where(torch.arange(WIDTH) == length - 1, EOS_ID, batch.tokens)
    batch = replace(batch, tokens=torch.where(batch.present, tokens, PAD_ID))
    plan = rounds_plan(losses=EVERY_LOSS | GATED, rounds=1, first_round="generate", on_policy_counts=0.0, **only(kind))
    _, out = play(model, batch, plan)
    assert len(out.filler.slot) == 0
    round_loss(out, plan).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert silent == []


def test_a_finished_text_stays_as_it_is_and_teaches_nothing():
    model, batch = make_model(), make_batch(ROWS)
    plan = rounds_plan(losses=EVERY_LOSS | GATED | {"kept_weight": 0.5}, stop={"in_training": True})
    state = begin(batch, plan)
    finished = torch.arange(ROWS) % 2 == 0
    after, out = play(model, batch, plan, replace(state, done=finished))
    assert torch.equal(after.tokens[finished], state.tokens[finished])
    assert torch.equal(after.length[finished], state.length[finished])
    assert not torch.equal(after.tokens, state.tokens)
    assert torch.equal(after.done[finished], finished[finished])
    total = round_loss(out, plan).total
    spoilt = replace(out, picker=replace(out.picker, wrong_logit=out.picker.wrong_logit + 3.0 * finished[:, None]))
    assert round_loss(spoilt, plan).total.item() == pytest.approx(total.item(), rel=1e-6)
    row = out.filler.slot // WIDTH
    assert finished[row].any()
    spoilt = replace(out, filler=replace(out.filler, loss=out.filler.loss + 3.0 * finished[row]))
    assert round_loss(spoilt, plan).total.item() == pytest.approx(total.item(), rel=1e-6)


def test_a_round_that_could_not_edit_finishes_no_unchanged_text():
    """Round 0 generates: a corrupted text from which nothing is missing must wait until it may be edited."""
    model, batch = make_model(), make_batch(ROWS)
    swaps = {"substitute": 0.0, "drop": 0.0, "double": 0.0, "typo": 0.0, "swap": 1.0, "shuffle_share": 0.0}
    plan = rounds_plan(first_round="generate", corruption=swaps, **only("corrupted"), **LABELS_ONLY)
    state, out = play(forced(model, -1), batch, plan)
    unchanged = (state.tokens == out.draft).all(1)
    assert unchanged.any()
    assert not state.done[unchanged].any()
    after, _ = play(model, batch, plan, state, 1)  # the Gate itself keeps shut: there is nothing left to do
    assert after.done[(after.tokens == state.tokens).all(1)].all()


def test_gradients_reach_every_module_and_the_picker_only_where_it_is_asked_for():
    model, batch = make_model(), make_batch(ROWS)
    _, out = play(model, batch, rounds_plan())
    round_loss(out, rounds_plan()).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert silent == []
    for part in ("table", "filler", "inserter", "picker", "gate"):
        assert any(p.grad.abs().max() > 0 for name, p in model.named_parameters() if name.startswith(part)), part
    for share in (0.0, 1.0):
        plan = make_plan(losses={"recon": 1.0}, picker_gradient=share, rollout={"starts": {"rewrite": 1.0}})
        model.zero_grad()
        _, out = play(model, batch, plan)
        round_loss(out, plan).total.backward()
        assert any(p.grad.any() for p in model.picker.parameters()) is (share > 0)


def test_the_model_knows_what_it_wrote_itself():
    model, batch = make_model(), make_batch(ROWS)
    state, _ = unrolled(model, batch, rounds_plan())
    given = Batch(state.tokens, state.length, batch.key).deletable & (state.written_prob == 1)
    written = Batch(state.tokens, state.length, batch.key).deletable & (state.written_prob < 1)
    assert given.any()
    assert written.any()
    assert ((state.written_prob > 0) | ~written).all()
    clean = rounds_plan(rounds=1, **only("empty"))
    state, _ = play(model, batch, clean)
    inner = Batch(state.tokens, state.length, batch.key).deletable
    assert (state.written_prob[inner] < 1).all()
