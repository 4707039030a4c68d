import pytest
import torch

from dualmask.config.corruption import CorruptionConfig
from dualmask.core.batch import Batch, deletable, present
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.families.edit.starts import KINDS, edits, start_states
from dualmask.ops import deletion
from dualmask.ops.corruption import corrupt

ROWS, WIDTH = 400, 24
HOW = CorruptionConfig(rate_low=0.2, rate_high=0.5)


def batch(rows=ROWS, garbage=PAD_ID):
    source = torch.Generator().manual_seed(3)
    length = torch.randint(2, WIDTH + 1, (rows,), generator=source)
    tokens = torch.randint(6, 2**50, (rows, WIDTH), generator=source)
    tokens[:, 0] = BOS_ID
    tokens.scatter_(1, length[:, None] - 1, EOS_ID)
    return Batch(torch.where(present(length, WIDTH), tokens, garbage), length, torch.arange(rows) * 7)


def starts(batch, shares, step=0, keep_rate=0.5):
    return start_states(batch, step, shares, torch.full((len(batch.length),), keep_rate), 0.5, 3.0, HOW, None)


def inner(tokens, length, row):
    return tokens[row, 1 : length[row] - 1].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_start_state_is_a_text(kind):
    start = starts(batch(garbage=17), {kind: 0.3})
    assert (start.kind == KINDS.index(kind)).all()
    assert (start.tokens[:, 0] == BOS_ID).all()
    assert (start.tokens.gather(1, start.length[:, None] - 1) == EOS_ID).all()
    assert torch.equal(start.tokens == PAD_ID, ~present(start.length, WIDTH))


@pytest.mark.parametrize("kind", ["rewrite", "clean"])
def test_whole_texts_stay_as_they_are(kind):
    whole = batch()
    start = starts(whole, {kind: 1.0})
    assert torch.equal(start.tokens, whole.tokens)
    assert torch.equal(start.length, whole.length)


@pytest.mark.parametrize("keep_rate", [0.0, 0.3, 1.0])
def test_a_skeleton_keeps_the_asked_share_in_order(keep_rate):
    whole = batch()
    start = starts(whole, {"skeleton": 1.0}, keep_rate=keep_rate)
    deleted = deletion.budget(whole.deletable, torch.full((ROWS,), keep_rate))
    assert torch.equal(start.length, whole.length - deleted)
    for row in range(ROWS):
        text = iter(inner(whole.tokens, whole.length, row))
        assert all(token in text for token in inner(start.tokens, start.length, row))


def test_a_prefix_misses_one_token_at_least_and_may_miss_all():
    whole = batch()
    start = starts(whole, {"prefix": 1.0})
    shares = []
    for row in range(ROWS):
        text, prefix = inner(whole.tokens, whole.length, row), inner(start.tokens, start.length, row)
        assert prefix == text[: len(prefix)]
        if text:
            assert len(prefix) < len(text)
            shares.append(len(prefix) / max(len(text) - 1, 1))
    assert torch.tensor(shares).mean() == pytest.approx(0.5, abs=0.06)
    assert {0.0, 1.0} <= set(shares)


def test_empty_is_bos_and_eos():
    assert (starts(batch(), {"empty": 1.0}).length == 2).all()


def test_corrupted_is_what_corruption_makes_of_the_text():
    whole = batch()
    start = starts(whole, {"corrupted": 1.0}, step=4)
    tokens, length = corrupt(whole.tokens, whole.length, whole.key, 4, HOW, None)
    assert torch.equal(start.tokens, tokens)
    assert torch.equal(start.length, length)
    assert (start.tokens != whole.tokens).any()


def test_kinds_come_in_their_shares():
    shares = {"rewrite": 2.0, "skeleton": 1.0, "corrupted": 1.0}
    kind = torch.cat([starts(batch(), shares, step).kind for step in range(8)])
    observed = torch.bincount(kind, minlength=len(KINDS)) / len(kind)
    assert observed.tolist() == pytest.approx([0.5, 0.25, 0, 0, 0.25, 0], abs=0.03)


def test_nothing_depends_on_companions():
    whole = batch(rows=24)
    shares = dict.fromkeys(KINDS, 1.0)
    together = starts(whole, shares, step=2)
    for row in range(24):
        alone = starts(whole.rows(slice(row, row + 1)), shares, step=2)
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert (alone.length[0], alone.kind[0]) == (together.length[row], together.kind[row])


def test_only_whole_texts_are_edited():
    assert [name for name, edit in zip(KINDS, edits(torch.arange(len(KINDS))), strict=True) if edit] == [
        "rewrite",
        "corrupted",
        "clean",
    ]


def test_inner_tokens_are_never_special():
    start = starts(batch(garbage=17), dict.fromkeys(KINDS, 1.0))
    assert (start.tokens[deletable(start.length, WIDTH)] >= 6).all()
