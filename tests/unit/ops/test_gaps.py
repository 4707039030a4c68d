"""Laws of deleting and inserting: they hold for every text, so hypothesis draws the texts."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.ops import gaps

WIDTH = 12


@st.composite
def texts(draw, rows=3):
    """tokens [B, T], length [B], deleted [B, T] with BOS and EOS kept."""
    tokens = torch.full((rows, WIDTH), PAD_ID)
    deleted = torch.zeros(rows, WIDTH, dtype=torch.bool)
    length = torch.tensor([draw(st.integers(2, WIDTH)) for _ in range(rows)])
    for i in range(rows):
        n = int(length[i])
        tokens[i, 1 : n - 1] = torch.tensor([draw(st.integers(6, 40)) for _ in range(n - 2)], dtype=torch.long)
        tokens[i, 0], tokens[i, n - 1] = BOS_ID, EOS_ID
        deleted[i, 1 : n - 1] = torch.tensor([draw(st.booleans()) for _ in range(n - 2)], dtype=torch.bool)
    return tokens, length, deleted


def present(length):
    return torch.arange(WIDTH) < length[:, None]


@given(texts())
@settings(max_examples=60, deadline=None)
def test_dropping_nothing_changes_nothing(text):
    tokens, length, _ = text
    skeleton = gaps.drop(tokens, present(length))
    assert torch.equal(skeleton.tokens, tokens)
    assert torch.equal(skeleton.length, length)


@given(texts())
@settings(max_examples=60, deadline=None)
def test_insert_after_drop_with_true_gaps_is_masking_in_place(text):
    tokens, length, deleted = text
    keep = present(length) & ~deleted
    masked = gaps.insert(gaps.drop(tokens, keep), gaps.gap_counts(keep, deleted), WIDTH)
    assert torch.equal(masked.tokens, torch.where(deleted, MASK_ID, tokens))
    assert torch.equal(masked.length, length)
    assert torch.equal(masked.is_mask, deleted)


@given(texts())
@settings(max_examples=60, deadline=None)
def test_skeleton_is_the_kept_tokens_in_order(text):
    tokens, length, deleted = text
    skeleton = gaps.drop(tokens, present(length) & ~deleted)
    for i in range(len(tokens)):
        kept = [int(t) for t, gone in zip(tokens[i, : length[i]], deleted[i], strict=False) if not gone]
        assert skeleton.tokens[i].tolist() == kept + [PAD_ID] * (WIDTH - len(kept))


@given(texts())
@settings(max_examples=60, deadline=None)
def test_counts_sum_to_the_deletions(text):
    _, length, deleted = text
    counts = gaps.gap_counts(present(length) & ~deleted, deleted)
    assert torch.equal(counts.sum(1), deleted.sum(1))
    left = (present(length) & ~deleted).sum(1)
    assert not (counts.bool() & ~gaps.gap_present(left, WIDTH)).any()


def test_insert_beyond_the_width_is_cut_not_wrapped():
    skeleton = gaps.Skeleton(torch.tensor([[BOS_ID, 7, EOS_ID, PAD_ID]]), torch.tensor([3]))
    masked = gaps.insert(skeleton, torch.tensor([[3, 3, 0]]), 5)
    assert masked.tokens.tolist() == [[BOS_ID, MASK_ID, MASK_ID, MASK_ID, 7]]
    assert masked.length.tolist() == [5]


def test_positions_are_contiguous_whatever_was_deleted():
    keep = torch.tensor([[True, False, True, True, False, True, False, False]])
    rate = torch.rand(1, 7)
    position = gaps.straight_through_positions(keep, rate)
    assert torch.allclose(position, torch.arange(8.0)[None], atol=1e-6)


def test_position_gradient_matches_finite_differences_of_the_relaxed_positions():
    keep = torch.tensor([[True, False, True, True, False, True]])
    rate = torch.rand(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    weight = torch.arange(6.0, dtype=torch.float64) ** 1.5

    def relaxed(r):
        """What the gradient stands for: tokens moved by the expected counts k·q of the gaps before them."""
        moved = (~keep).sum(1, keepdim=True) * r / r.sum(1, keepdim=True)
        shift = torch.nn.functional.pad(moved.cumsum(1), (1, 0))
        return (shift.gather(1, gaps.gap_index(keep)) * weight).sum()

    leaf = rate.clone().requires_grad_()
    (gaps.straight_through_positions(keep, leaf).double() * weight).sum().backward()
    for j in range(5):
        step = torch.zeros_like(rate)
        step[0, j] = 1e-5
        slope = (relaxed(rate + step) - relaxed(rate - step)) / 2e-5
        assert abs(slope.item() - leaf.grad[0, j].item()) < 1e-4
