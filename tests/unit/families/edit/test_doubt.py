"""Stage filler on texts with mistakes: what belongs in a hole, what is doubted. And what who mends is told."""

import torch
from stages import make_stage
from tiny_rounds import make_batch, make_model, rounds_plan

from dualmask.core.tokenizer import MASK_ID
from dualmask.curriculum import plan_at
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.runtime import copied
from dualmask.families.edit.task import EditTask, RoundsTask
from dualmask.families.edit.told import NOT_TOLD, ToldGaps
from dualmask.ops import gaps
from dualmask.ops.alignment import align

STAGE = {
    "name": "filler",
    "steps": 10,
    "train": ["filler"],
    "lr": {"peak": 1e-3},
    "losses": {"recon": 1.0, "doubt": 2.0},
    "deletion": {"keep_rate_low": 0.6, "keep_rate_high": 0.9},
    "corruption": {"rate_low": 0.3, "rate_high": 0.3},
}


def played(**changes):
    plan = EditPlan.of(plan_at([make_stage(STAGE | changes)], 3))
    batch = make_batch(24)
    return batch, EditTask(make_model()).with_holes(batch, plan)


def test_the_filler_is_asked_for_what_belongs_at_a_hole_and_nothing_where_that_is_not_known():
    batch, out = played(corrupted=1.0)
    match = align(out.draft, out.length, batch.tokens, batch.length)
    assert torch.equal(out.match, match)
    assert (match < 0).sum() > 24  # padding alone would not do
    width = batch.tokens.shape[1]
    right = same = 0
    for slot, weight, target in zip(
        out.filler.slot.tolist(), out.filler.slot_weight.tolist(), out.filler.target.tolist(), strict=True
    ):
        row, place = divmod(slot, width)
        assert out.deleted[row, place]
        if weight and match[row, place] >= 0:
            right += 1
            same += target == out.draft[row, place]
    assert right > 12
    assert same / right > 0.8  # beside a mistake another token may belong in the same hole


def test_doubts_are_about_visible_tokens_and_their_labels_are_the_alignment_s():
    _, out = played(corrupted=1.0)
    assert not (out.doubt.where & out.deleted).any()
    assert torch.equal(out.doubt.wrong, out.match < 0)
    assert 0.02 < out.doubt.wrong[out.doubt.where].float().mean() < 0.5


def test_a_share_of_the_texts_is_left_as_it_is():
    batch, out = played(corrupted=0.5)
    changed = torch.tensor([not torch.equal(a, b) for a, b in zip(out.draft, batch.tokens, strict=True)])
    assert 4 < changed.sum() < 20
    batch, out = played(corrupted=0.0)
    assert torch.equal(out.draft, batch.tokens)
    assert not (out.doubt.wrong & out.doubt.where).any()


def test_the_picker_begins_with_the_filler_s_trunk_and_doubts():
    stage = {"name": "picker", "steps": 3, "train": ["picker"], "lr": {"peak": 1e-3}}
    stage = make_stage(stage | {"start_from": {"picker": "filler"}})
    begun = copied([name for name, _ in make_model(picker_layers=2).named_parameters()], stage)
    for name in ("trunk.norm.weight", "doubt.weight", "doubt.bias", "trunk.blocks.1.mlp.up.weight"):
        assert begun[f"picker.{name}"] == f"filler.{name}"
    assert "picker.delete.weight" not in begun


def test_only_texts_that_are_mended_are_told_what_was_deleted(monkeypatch):
    plan, batch = rounds_plan(told_deletions=1.0), make_batch(24)
    task, told = RoundsTask(make_model()), []
    count = task.model.count
    monkeypatch.setattr(
        task.model, "count", lambda skeleton, x, what: told.append(what.number) or count(skeleton, x, what)
    )
    outs, _ = task.play(batch, plan, range(1))
    mended = outs[0].keep_rate == 1
    assert 0 < mended.sum() < 24
    assert ((told[0] == NOT_TOLD).all(1) == ~mended).all()
    keep = (outs[0].draft > 0) & ~outs[0].deleted
    assert torch.equal(told[0][mended], gaps.gap_counts(keep, outs[0].deleted)[mended])


def test_hints_and_counts_reach_what_they_are_for():
    model, batch = make_model(), make_batch(6)
    with torch.no_grad():
        model.filler.hint.weight.normal_(std=0.3)
    tokens = torch.where(batch.deletable & (torch.arange(20) % 4 == 2), MASK_ID, batch.tokens)
    slot = (tokens == MASK_ID).flatten().nonzero().squeeze(1)
    replaced = torch.where(tokens == MASK_ID, batch.tokens, -1)[..., None]
    plain, hinted = model.fill(tokens, batch.length, slot), model.fill(tokens, batch.length, slot, replaced)
    nothing = model.fill(tokens, batch.length, slot, torch.full_like(replaced, -1))
    assert torch.allclose(plain, nothing, atol=1e-6)
    assert (plain - hinted).abs().max() > 0.1
    skeleton = gaps.drop(batch.tokens, batch.present)
    untold = model.count(skeleton).gap_logits
    told = ToldGaps(torch.full((6, 19), NOT_TOLD), torch.zeros(6, 19, 0, model.config.hidden))
    assert torch.equal(untold, model.count(skeleton, told=told).gap_logits)
    told.number[:, 3] = 2
    assert (untold - model.count(skeleton, told=told).gap_logits).abs().amax((0, 2)).nonzero().flatten().tolist() == [3]
