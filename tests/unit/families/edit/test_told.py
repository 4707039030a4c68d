"""What of a gap's deleted tokens reaches its masks and its count (``model.told_pieces``)."""

import pytest
import torch
from tiny_rounds import make_batch, make_model, make_plan, rounds_plan

from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.round import drop, insert, play_round
from dualmask.families.edit.task import RoundsTask
from dualmask.families.edit.told import NOT_TOLD, embeddings_at, tokens_at, told_gaps, told_masks

PIECES = 3
# two gaps that lose two tokens and four, padding behind; and a text that loses none
TOKENS = torch.tensor(
    [
        [BOS_ID, 10, 11, 12, 13, 14, 15, 16, 17, EOS_ID, PAD_ID, PAD_ID],
        [BOS_ID, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, EOS_ID],
    ]
)
LENGTH = torch.tensor([10, 12])
MENDED = {"starts": {"corrupted": 1.0}, "told_deletions": 1.0, "teacher_forced_deletions": 1.0, "on_policy_counts": 0.0}
DELETED = torch.zeros(2, 12, dtype=torch.bool)
DELETED[0, [2, 3, 5, 6, 7, 8]] = True


def opened(tokens=TOKENS, length=LENGTH, deleted=DELETED):
    """One mask in the first gap that lost something, two in the second, one where nothing was deleted."""
    remainder = drop(tokens, length, deleted)
    count = torch.zeros(len(tokens), tokens.shape[1] - 1, dtype=torch.long)
    count[0, 1], count[0, 2], count[-1, 4] = 1, 2, 1
    return insert(remainder, count)


def test_each_mask_is_told_its_own_and_the_first_pieces_of_its_gap():
    told = tokens_at(TOKENS, told_masks(opened(), torch.tensor([True, True]), PIECES))
    assert opened().masked.tokens[0].tolist()[:7] == [BOS_ID, 10, MASK_ID, 13, MASK_ID, MASK_ID, EOS_ID]
    nothing = [NOT_TOLD] * (1 + PIECES)
    pieces = [14, 15, 16]
    assert told[0, :7].tolist() == [nothing, nothing, [11, 11, 12, -1], nothing, [14, *pieces], [15, *pieces], nothing]
    assert (told[0, 7:] == NOT_TOLD).all()
    assert (told[1] == NOT_TOLD).all()  # a mask where nothing was deleted


def test_gaps_are_told_the_same_pieces_and_their_number():
    remainder = drop(TOKENS, LENGTH, DELETED)
    told = told_gaps(remainder, torch.tensor([True, True]), PIECES)
    assert told.number[0].tolist() == [0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0]
    assert tokens_at(TOKENS, told.pieces)[0, :4].tolist() == [[-1] * 3, [11, 12, -1], [14, 15, 16], [-1] * 3]
    assert (told.pieces[0, 3:] == NOT_TOLD).all()
    assert (told.pieces[1] == NOT_TOLD).all()
    untold = told_gaps(remainder, torch.tensor([False, True]), PIECES)
    assert (untold.number[0] == NOT_TOLD).all()
    assert (untold.pieces == NOT_TOLD).all()
    assert (told_masks(opened(), torch.tensor([False, True]), PIECES) == NOT_TOLD).all()


def test_embeddings_are_those_of_the_ids_and_carry_no_gradient():
    model = make_model(told_pieces=PIECES)
    place = told_masks(opened(), torch.tensor([True, True]), PIECES)
    found = embeddings_at(model.table(TOKENS), place)
    assert not found.requires_grad
    assert torch.equal(found, model.recall(tokens_at(TOKENS, place)))
    assert found[0, 4, 1:].abs().sum() > 0
    assert (found[1] == 0).all()


def fills(model, tokens, rows=slice(None), width=12):
    """[B, W, V] the filler's logits everywhere, and [B, G, K+1] the inserter's, when both are told."""
    tokens, length, deleted = tokens[rows, :width], LENGTH[rows], DELETED[rows, :width]
    gap = opened(tokens, length, deleted)
    replaced = tokens_at(tokens, told_masks(gap, torch.ones_like(length, dtype=torch.bool), model.config.told_pieces))
    slot = torch.arange(gap.masked.tokens.numel())
    logits = model.fill(gap.masked.tokens, gap.masked.length, slot, replaced)
    told = told_gaps(gap.remainder, torch.ones_like(length, dtype=torch.bool), model.config.told_pieces)
    told = told._replace(pieces=model.recall(tokens_at(tokens, told.pieces)))
    return logits.view(*replaced.shape[:2], -1), model.count(gap.remainder.skeleton, told=told).gap_logits


@pytest.mark.parametrize(("place", "heard"), [(3, True), (7, True), (8, False)])
def test_a_piece_matters_to_its_gap_as_far_as_it_is_told(place, heard):
    """The last one of the first gap, the third of the second, the fourth, of which nobody is told."""
    model, other = make_model(told_pieces=PIECES), TOKENS.clone()
    other[0, place] = 31
    before, after = fills(model, TOKENS), fills(model, other)
    masks = opened().masked.is_mask[0]
    assert ((before[0] - after[0])[0, masks].abs().amax() > 1e-3) == heard
    gap = 1 if place == 3 else 2
    changed = (before[1] - after[1]).abs().amax(2)[0]
    assert changed.nonzero().flatten().tolist() == ([gap] if heard else [])
    deaf = make_model()
    assert torch.equal(fills(deaf, TOKENS)[0], fills(deaf, other)[0])  # one mask, or two, of as many pieces and more
    assert torch.equal(fills(deaf, TOKENS)[1], fills(deaf, other)[1])


def test_the_order_of_the_pieces_matters():
    model, other = make_model(told_pieces=PIECES), TOKENS.clone()
    other[0, [2, 3]] = TOKENS[0, [3, 2]]
    assert (fills(model, TOKENS)[1] - fills(model, other)[1])[0, 1].abs().max() > 1e-3


def test_neither_other_texts_nor_padding_matter():
    model = make_model(told_pieces=PIECES)
    together, alone = fills(model, TOKENS), fills(model, TOKENS, rows=slice(0, 1), width=10)
    assert torch.allclose(together[0][0, :7], alone[0][0, :7], atol=1e-5)
    assert torch.allclose(together[1][0, :4], alone[1][0, :4], atol=1e-5)


def test_a_model_begins_as_without_it_and_is_taught_in_rounds():
    """The maps are 0 at first, and get a gradient."""
    corruption = {"rate_low": 0.6, "rate_high": 0.6, "drop": 0.5, "shuffle_share": 0}
    plan, batch = rounds_plan(**MENDED, corruption=corruption), make_batch(24)
    losses = {}
    for pieces in (0, PIECES):
        model = make_model()
        if pieces:
            weights, model = model.state_dict(), make_model(told_pieces=pieces)
            missing = model.load_state_dict(weights, strict=False).missing_keys
            assert missing == ["filler.pieces.weight", "inserter.pieces.weight"]
            with torch.no_grad():
                model.filler.pieces.weight.zero_()
                model.inserter.pieces.weight.zero_()
        out = RoundsTask(model).play(batch, plan, range(1))[0][0]
        losses[pieces] = (out.filler.loss * out.filler.slot_weight).sum() + out.inserter.gap_logits.square().mean()
    assert torch.equal(losses[0], losses[PIECES])
    losses[PIECES].backward()
    for part in (model.filler, model.inserter):
        assert (part.pieces.weight.grad.unflatten(1, (PIECES, -1)).abs().amax((0, 2)) > 0).all()


def test_where_nothing_is_told_the_maps_get_a_gradient_of_zeros():
    """As ZeRO-3 wants of every module that a stage teaches."""
    model, batch = make_model(told_pieces=PIECES), make_batch(12)
    out = model(batch, make_plan())
    (out.filler.loss.sum() + out.inserter.gap_logits.sum()).backward()
    for part in (model.filler, model.inserter):
        assert (part.pieces.weight.grad == 0).all()


def test_an_evaluation_that_tells_hands_the_pieces_on():
    model, other = make_model(told_pieces=PIECES), TOKENS.clone()
    other[0, [3, 6, 7]] = torch.tensor([31, 32, 33])
    written = [
        play_round(tokens, LENGTH, GivenRules(model, DELETED, told=tokens if told else None)).tokens
        for tokens in (TOKENS, other)
        for told in (True, False)
    ]
    assert torch.equal(written[1], written[3])
    assert written[0].shape != written[2].shape or not torch.equal(written[0], written[2])
