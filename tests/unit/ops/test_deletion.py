import pytest
import torch

from dualmask.ops import deletion


def deletable(rows=64, width=40):
    length = torch.randint(2, width + 1, (rows,), generator=torch.Generator().manual_seed(0))
    place = torch.arange(width)
    return (place > 0) & (place < length[:, None] - 1)


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


def test_substitution_hits_its_share_and_nothing_else():
    tokens = torch.arange(6, 46).repeat(400, 1)
    where = torch.ones_like(tokens, dtype=torch.bool)
    where[:, 0] = where[:, -1] = False
    out = deletion.substitute(tokens, where, torch.arange(400), 0, share=0.5, rate=0.2)
    changed = out != tokens
    assert not (changed & ~where).any()
    rows = changed.any(1).float().mean().item()
    assert rows == pytest.approx(0.5, abs=0.07)
    assert changed[changed.any(1)][:, 1:-1].float().mean().item() == pytest.approx(0.2, abs=0.03)
