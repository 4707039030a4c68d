import pytest
import torch

from dualmask.ops import deletion


def deletable(rows=64, width=40):
    length = torch.randint(2, width + 1, (rows,), generator=torch.Generator().manual_seed(0))
    position = torch.arange(width)
    return (position > 0) & (position < length[:, None] - 1)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_budget_is_met_exactly(rate):
    where = deletable()
    number = deletion.budget(where, torch.full((64,), rate))
    score = deletion.random_scores(torch.arange(64), 0, 40, span_share=0.5, mean_span=3.0)
    deleted = deletion.best_first(score, where, number)
    assert torch.equal(deleted.sum(1), torch.round((1 - rate) * where.sum(1)).long())
    assert not (deleted & ~where).any()


def test_best_first_takes_the_highest():
    score = torch.tensor([[9.0, 0.1, 0.5, 0.3, 9.0]])
    where = torch.tensor([[False, True, True, True, False]])
    assert deletion.best_first(score, where, torch.tensor([2])).tolist() == [[False, False, True, True, False]]


def test_spans_have_the_asked_mean_length():
    key, width = torch.arange(400), 200
    where = torch.ones(400, width, dtype=torch.bool)
    for mean_span in (1.0, 3.0, 6.0):
        score = deletion.random_scores(key, 0, width, span_share=1.0, mean_span=mean_span)
        deleted = deletion.best_first(score, where, torch.full((400,), 40))
        starts = (deleted & ~torch.nn.functional.pad(deleted, (1, 0))[:, :-1]).sum()
        # at a fifth deleted, every fifth span is followed by another deleted one, so runs are up to 1.25 times as long;
        # the span that the budget cuts short takes a little off again
        assert 1.0 <= deleted.sum().item() / starts.item() / mean_span <= 1.3


def pairwise_model(rows=5, width=9):
    draw = torch.Generator().manual_seed(3)
    unary = torch.randn(rows, width, generator=draw)
    pairwise = torch.randn(rows, width, len(deletion.OFFSETS), generator=draw)
    return unary, pairwise


def expected_restored(unary, pairwise, chosen):
    return (torch.sigmoid(deletion.given_neighbours(unary, pairwise, chosen)) * chosen).sum(1)


def test_neighbours_count_from_the_side_that_they_stand_on():
    unary, pairwise = torch.zeros(1, 5), torch.zeros(1, 5, len(deletion.OFFSETS))
    pairwise[0, 2] = torch.tensor([1.0, 10.0, 100.0, 1000.0])  # of the tokens two and one before, one and two behind
    for position, effect in ((0, 1.0), (1, 10.0), (3, 100.0), (4, 1000.0)):
        deleted = torch.zeros(1, 5, dtype=torch.bool)
        deleted[0, position] = True
        assert deletion.given_neighbours(unary, pairwise, deleted)[0, 2] == effect


def test_gain_is_the_change_of_the_expected_number_restored():
    unary, pairwise = pairwise_model()
    chosen = torch.rand(5, 9, generator=torch.Generator().manual_seed(4)) < 0.4
    gain = deletion.gains(unary, pairwise, chosen)
    before = expected_restored(unary, pairwise, chosen)
    for position in range(9):
        more = chosen.clone()
        more[:, position] = True
        free = ~chosen[:, position]
        change = expected_restored(unary, pairwise, more) - before
        assert torch.allclose(gain[free, position], change[free], atol=1e-5)


def test_choosing_meets_the_budget_and_beats_scores_alone():
    rows, width = 200, 40
    draw = torch.Generator().manual_seed(5)
    unary = torch.randn(rows, width, generator=draw) * 2
    pairwise = -2 * torch.rand(rows, width, len(deletion.OFFSETS), generator=draw)
    where = torch.ones(rows, width, dtype=torch.bool)
    where[:, 0] = where[:, -1] = False
    for count in (0, 1, 12, 38):
        number = torch.full((rows,), count)
        chosen = deletion.choose(unary, pairwise, where, number)
        assert torch.equal(chosen.sum(1), number)
        assert not (chosen & ~where).any()
        simple = deletion.best_first(unary, where, number)
        better = expected_restored(unary, pairwise, chosen) - expected_restored(unary, pairwise, simple)
        assert better.mean() >= 0
        if count == 12:
            assert better.mean() > 1.0
