"""Laws of the model's parts and of the stages in which nobody picks, on random weights."""

from dataclasses import replace

import pytest
import torch
from stages import make_stage
from tiny_rounds import VOCAB, WIDTH, make_batch, make_model, make_plan

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import MASK_ID
from dualmask.families.edit.completion import Deletion, masked_embeddings
from dualmask.families.edit.losses.total import round_loss
from dualmask.families.edit.round import drop, insert
from dualmask.families.edit.runtime import copied
from dualmask.ops import gaps

HOLES = {"name": "inserter", "train": ["filler", "inserter"], "losses": {"recon": 1.0, "ptr_count": 1.0}}


def test_random_holes_are_consistent_and_their_losses_finite():
    model, batch, plan = make_model(), make_batch(), make_plan(**HOLES)
    out = model(batch, plan)
    report = round_loss(out, plan)
    assert {"recon", "ptr_count", "ptr_match", "ptr_uniform"} <= set(report.parts)
    assert torch.isfinite(torch.stack([report.total, *report.parts.values()])).all()
    assert torch.equal(out.gap_count.sum(1), out.deleted.sum(1))
    assert torch.equal(batch.tokens.flatten()[out.filler.slot], out.filler.target)
    assert torch.equal(out.filler.slot, out.deleted.flatten().nonzero().squeeze(1))
    assert not (out.deleted & ~batch.deletable).any()


def test_gradients_reach_every_module_that_trains():
    model, batch, plan = make_model(), make_batch(), make_plan(**HOLES)
    round_loss(model(batch, plan), plan).total.backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"table", "filler", "inserter"}


def test_revealing_gradient_is_the_slope_of_the_mixed_embedding():
    """The picker's straight-through gradient against finite differences of m·emb(x) + (1−m)·emb([MASK])."""
    model, batch = make_model().double(), make_batch()
    keep = torch.where(batch.deletable & (torch.arange(WIDTH) % 3 == 1), 0.0, 1.0).double()
    kept = (keep > 0.5) & batch.present
    gone = batch.present & ~kept
    match = torch.arange(WIDTH).expand_as(kept)
    opened = insert(drop(batch.tokens, batch.length, gone), gaps.gap_counts(kept, gone), WIDTH)
    masked = opened.masked
    position = gaps.contiguous_positions(masked.tokens).double()
    slot = masked.is_mask.flatten().nonzero().squeeze(1)
    target = batch.tokens.flatten()[slot]

    def loss_of(x):
        logits = model.filler(x, position, batch.present, slot, model.table).logits
        return torch.nn.functional.cross_entropy(logits, target)

    def relaxed(m):
        full, hole = model.table(batch.tokens), model.table(torch.full_like(batch.tokens, MASK_ID))
        return loss_of(m[..., None] * full + (1 - m)[..., None] * hole)

    leaf = keep.clone().requires_grad_()
    deletion = Deletion(batch, model.table(batch.tokens), match, gone, leaf)
    loss_of(masked_embeddings(model, deletion, opened, reveal=1.0)).backward()
    for row, column in ((0, 1), (0, 2), (1, 4), (4, 10)):
        step = torch.zeros_like(keep)
        step[row, column] = 1e-6
        slope = (relaxed(keep + step) - relaxed(keep - step)) / 2e-6
        assert slope.item() == pytest.approx(leaf.grad[row, column].item(), rel=1e-4, abs=1e-9)


def test_results_do_not_depend_on_companions_or_padding():
    model, batch, plan = make_model(), make_batch(), make_plan(**HOLES)
    rubbish = replace(batch, tokens=torch.where(batch.present, batch.tokens, 77))
    whole, other = model(batch, plan), model(rubbish, plan)
    assert torch.equal(whole.deleted, other.deleted)
    assert torch.allclose(whole.filler.logits, other.filler.logits, atol=1e-5)
    for row in range(len(batch.length)):
        alone = model(batch.rows(slice(row, row + 1)), plan)
        assert torch.equal(alone.deleted[0], whole.deleted[row])
        present = whole.inserter.gap_present[row]
        assert torch.allclose(alone.inserter.gap_logits[0][present], whole.inserter.gap_logits[row][present], atol=1e-5)
        mine = whole.filler.slot // WIDTH == row
        assert torch.allclose(alone.filler.logits, whole.filler.logits[mine], atol=1e-5)


def test_loss_of_a_batch_is_the_mean_of_its_halves():
    """What makes ranks and gradient accumulation exact."""
    model, batch, plan = make_model(), make_batch(), make_plan(**HOLES)
    halves = [batch.rows(slice(0, 3)), batch.rows(slice(3, 6))]
    whole, *parts = (round_loss(model(x, plan), plan).total.item() for x in (batch, *halves))
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_budget_selection_deletes_exactly_the_asked_share():
    model, batch = make_model(), make_batch()
    for rate in (0.2, 0.5, 0.9):
        asked = torch.full((6,), rate)
        out = model.pick(batch, asked, step=0, temperature=1.0)
        gone = ((out.keep < 0.5) & batch.deletable).sum(1)
        assert torch.equal(gone, torch.round((1 - rate) * batch.deletable.sum(1)).long())


def test_free_selection_keeps_the_asked_share_on_average():
    model = make_model(selection="free")
    rows = 400
    tokens = torch.randint(6, VOCAB, (rows, WIDTH), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.full((rows,), WIDTH), torch.arange(rows))
    out = model.pick(batch, torch.full((rows,), 0.7), step=0, temperature=1.0)
    kept = out.keep[batch.deletable].mean().item()
    assert kept == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel", "hard_concrete"])
def test_every_estimator_gives_hard_decisions_and_a_gradient(estimator):
    model, batch = make_model(estimator=estimator), make_batch()
    out = model.pick(batch, torch.full((6,), 0.5), step=0, temperature=1.0)
    assert set(out.keep.detach().unique().tolist()) <= {0.0, 1.0}
    out.keep.sum().backward()
    assert model.picker.delete.weight.grad.abs().max() > 0


def test_starting_from_the_filler_copies_its_trunk_and_nothing_else():
    model = make_model()
    stage = make_stage(
        {
            "name": "inserter",
            "steps": 1,
            "train": ["inserter"],
            "lr": {"peak": 1e-3},
            "start_from": {"inserter": "filler"},
        }
    )
    names = [name for name, _ in model.named_parameters()]
    twins = {name: name.replace("inserter", "filler") for name in names if name.startswith("inserter.trunk")}
    assert twins
    assert copied(names, stage) == twins


def test_trainable_groups():
    stage = make_stage({"name": "picker", "steps": 1, "train": ["picker"], "lr": {"peak": 1e-3}})
    assert stage.module_of("picker.trunk.norm.weight") == "picker"
    assert stage.module_of("table.weight") is None
    assert stage.module_of("filler.up.weight") is None
    assert stage.model_copy(update={"train": ("filler",)}).module_of("table.weight") == "filler"
