"""Laws of the one-round model on random weights: what must hold before anything is learnt."""

from dataclasses import replace

import pytest
import torch

from dualmask.batch import Batch
from dualmask.config.schema import ModelConfig, StageConfig
from dualmask.curriculum import plan_at
from dualmask.losses import recoverability
from dualmask.losses.total import total_loss
from dualmask.models.dualmask import DualMask, start_from, trainable
from dualmask.ops import gaps
from dualmask.parallel import mesh
from dualmask.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID

VOCAB, WIDTH = 300, 20
CONFIG = ModelConfig(hidden=32, heads=4, filler_layers=2, inserter_layers=1, picker_layers=1, max_length=WIDTH)
EVERY_LOSS = dict.fromkeys(
    ("recon", "comp_hinge", "comp_kl", "ptr_count", "ptr_match", "ptr_uniform", "keep_recover", "keep_oracle"), 1.0
)


def make_model(**changes) -> DualMask:
    mesh.single_process()
    torch.manual_seed(0)
    return DualMask(CONFIG.model_copy(update=changes), VOCAB)


def make_batch(rows: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(1)
    length = torch.tensor([20, 12, 2, 9, 20, 15][:rows])
    tokens = torch.randint(6, VOCAB, (rows, WIDTH), generator=draw)
    place = torch.arange(WIDTH)
    tokens = torch.where(place == length[:, None] - 1, EOS_ID, torch.where(place >= length[:, None], PAD_ID, tokens))
    tokens[:, 0] = BOS_ID
    return Batch(tokens, length, torch.arange(rows) * 7919)


def stage_plan(**changes):
    stage = StageConfig.model_validate(
        {
            "name": "picker",
            "steps": 10,
            "train": ["filler", "inserter", "picker"],
            "lr": {"peak": 1e-3},
            "losses": EVERY_LOSS,
            "deletion": {"random_share": 0.5, "corrupt_share": 0.5},
            **changes,
        }
    )
    return plan_at([stage], 3)


def test_every_loss_of_the_table_is_finite_and_the_round_is_consistent():
    model, batch, plan = make_model(), make_batch(), stage_plan(picker_gradient=0.5)
    out = model(batch, plan)
    report = total_loss(out, batch, plan)
    assert set(EVERY_LOSS) <= set(report.parts)
    assert all(torch.isfinite(value) for value in report.parts.values())
    assert torch.isfinite(report.total)
    assert torch.equal(out.gap_count.sum(1), out.deleted.sum(1))
    assert torch.equal(batch.tokens.flatten()[out.filler.slot], out.filler.target)
    assert not (out.deleted & ~batch.deletable).any()


def test_gradients_reach_every_module_that_trains():
    model, batch = make_model(), make_batch()
    plan = stage_plan(picker_gradient=1.0)
    total_loss(model(batch, plan), batch, plan).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert silent == []
    for part in ("table", "filler", "inserter", "picker"):
        assert any(p.grad.abs().max() > 0 for n, p in model.named_parameters() if n.startswith(part)), part


def test_picker_gradient_zero_cuts_the_reconstruction_off_from_the_picker():
    model, batch = make_model(), make_batch()
    only_recon = {"losses": {"recon": 1.0}}
    for share, reached in ((0.0, False), (1.0, True)):
        plan = stage_plan(picker_gradient=share, **only_recon)
        model.zero_grad()
        total_loss(model(batch, plan), batch, plan).total.backward()
        moved = [p.grad.abs().max().item() for p in model.picker.parameters() if p.grad is not None]
        assert any(value > 0 for value in moved) is reached


def test_revealing_gradient_is_the_slope_of_the_mixed_embedding():
    """The picker's straight-through gradient against finite differences of m·emb(x) + (1−m)·emb([MASK])."""
    model, batch = make_model().double(), make_batch()
    keep = torch.where(batch.deletable & (torch.arange(WIDTH) % 3 == 1), 0.0, 1.0).double()
    deleted = (keep < 0.5) & batch.deletable
    masked = torch.where(deleted, MASK_ID, batch.tokens)
    position = gaps.contiguous_positions(masked).double()
    slot = deleted.flatten().nonzero().squeeze(1)
    target = batch.tokens.flatten()[slot]

    def loss_of(x):
        logits = model.filler(x, position, batch.present, slot, model.table)
        return torch.nn.functional.cross_entropy(logits, target)

    def relaxed(m):
        full, hole = model.table(batch.tokens), model.table(torch.full_like(batch.tokens, MASK_ID))
        return loss_of(m[..., None] * full + (1 - m)[..., None] * hole)

    leaf = keep.clone().requires_grad_()
    loss_of(model.table(masked) + model._reveal_gradient(batch, leaf, torch.zeros(6, dtype=torch.bool))).backward()
    for row, place in ((0, 1), (0, 2), (1, 4), (4, 10)):
        step = torch.zeros_like(keep)
        step[row, place] = 1e-6
        slope = (relaxed(keep + step) - relaxed(keep - step)) / 2e-6
        assert slope.item() == pytest.approx(leaf.grad[row, place].item(), rel=1e-4, abs=1e-9)


def test_results_do_not_depend_on_companions_or_padding():
    model, batch, plan = make_model(), make_batch(), stage_plan()
    rubbish = replace(batch, tokens=torch.where(batch.present, batch.tokens, 77))
    whole, other = model(batch, plan), model(rubbish, plan)
    assert torch.equal(whole.deleted, other.deleted)
    assert torch.allclose(whole.filler.logits, other.filler.logits, atol=1e-5)
    for row in range(len(batch.length)):
        alone = model(batch.rows(slice(row, row + 1)), plan)
        assert torch.equal(alone.deleted[0], whole.deleted[row])
        assert torch.allclose(alone.picker.delete_logit[0], whole.picker.delete_logit[row], atol=1e-5)
        present = whole.inserter.gap_present[row]
        assert torch.allclose(alone.inserter.gap_logits[0][present], whole.inserter.gap_logits[row][present], atol=1e-5)
        mine = whole.filler.slot // WIDTH == row
        assert torch.allclose(alone.filler.logits, whole.filler.logits[mine], atol=1e-5)


def test_loss_of_a_batch_is_the_mean_of_its_halves():
    """What makes ranks and gradient accumulation exact."""
    model, batch, plan = make_model(), make_batch(), stage_plan()
    whole = total_loss(model(batch, plan), batch, plan).total
    halves = [batch.rows(slice(0, 3)), batch.rows(slice(3, 6))]
    mean = sum(total_loss(model(half, plan), half, plan).total for half in halves) / 2
    assert whole.item() == pytest.approx(mean.item(), rel=1e-5)


def test_recoverability_label_is_filler_times_inserter():
    model, batch, plan = make_model(), make_batch(), stage_plan()
    out = model(batch, plan)
    label = recoverability.labels(out)
    assert ((label > 0) <= out.deleted).all()
    slot = int(out.filler.slot[0])
    row, place = divmod(slot, WIDTH)
    gap = int((~out.deleted[row, :place]).sum()) - 1
    count = int(out.gap_count[row, gap])
    found = out.inserter.gap_logits[row, gap].softmax(-1)[min(count, CONFIG.max_gap_count)] * (
        count <= CONFIG.max_gap_count
    )
    assert label[row, place].item() == pytest.approx((out.filler.target_prob[0] * found).item(), rel=1e-5)


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
    stage = StageConfig.model_validate(
        {
            "name": "inserter",
            "steps": 1,
            "train": ["inserter"],
            "lr": {"peak": 1e-3},
            "start_from": {"inserter": "filler"},
        }
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    after = start_from(before, stage)
    assert after.keys() == before.keys()
    for name, value in after.items():
        source = name.replace("inserter.trunk", "filler.trunk") if name.startswith("inserter.trunk") else name
        assert torch.equal(value, before[source]), name


def test_trainable_groups():
    stage = StageConfig.model_validate({"name": "picker", "steps": 1, "train": ["picker"], "lr": {"peak": 1e-3}})
    assert trainable("picker.trunk.norm.weight", stage) == "picker"
    assert trainable("table.weight", stage) is None
    assert trainable("filler.up.weight", stage) is None
    assert trainable("table.weight", stage.model_copy(update={"train": ("filler",)})) == "filler"


def test_oracle_rewards_doubting_the_wrong_tokens_and_only_in_corrupted_texts():
    model, batch = make_model(), make_batch()
    plan = stage_plan(deletion={"random_share": 0.5, "corrupt_share": 1.0, "corrupt_rate": 0.3})
    out = model(batch, plan)
    wrong = out.draft != batch.tokens
    assert wrong.any()

    def oracle(prob):
        keep_prob = torch.where(batch.deletable, prob, 1.0)
        return recoverability.oracle(replace(out, picker=replace(out.picker, keep_prob=keep_prob)), batch.tokens, 10.0)

    knowing, guessing = torch.where(wrong, 0.1, 0.9), torch.full(wrong.shape, 0.5)
    assert oracle(knowing) < oracle(guessing) < oracle(1 - knowing)
    clean = replace(out, draft=batch.tokens)
    assert recoverability.oracle(clean, batch.tokens, 10.0) == 0
