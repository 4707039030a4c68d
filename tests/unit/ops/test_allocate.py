"""Counts per gap against dynamic programming."""

import pytest
import torch
from torch import Tensor

from dualmask.ops import allocate


def best_value(score: Tensor, allowed: Tensor, total: int) -> float:
    """max Σ score[g, c_g] with Σ c_g = total, by dynamic programming over the gaps of one sample [G, N]."""
    best = {0: 0.0}
    for row, open_ in zip(score.tolist(), allowed.tolist(), strict=True):
        after: dict[int, float] = {}
        for used, value in best.items():
            for count, gain in enumerate(row if open_ else row[:1]):
                if used + count <= total:
                    after[used + count] = max(after.get(used + count, float("-inf")), value + gain)
        best = after
    return best[total]


def value(score: Tensor, count: Tensor) -> float:
    return float(score.gather(-1, count[:, None]).sum())


def case(seed: int, batch: int, gaps: int, most: int, sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(batch, gaps, most + 1, generator=generator)
    allowed = torch.rand(batch, gaps, generator=generator) < 0.8
    allowed[:, 0] = True
    capacity = most * allowed.sum(1)
    total = (torch.rand(batch, generator=generator) * (capacity + 1)).long().clamp_max(capacity)
    return logits.log_softmax(-1), allowed, total


@pytest.mark.parametrize("seed", range(10))
def test_concave_scores_reach_the_optimum(seed: int) -> None:
    """Poisson-like gaps, log-concave in the count: the multiplier finds the optimum exactly."""
    logits, allowed, total = case(seed, 16, 7, 5, 1.0)
    number = torch.arange(6)
    rate = logits[..., :1].exp() * 4 + 0.05
    score = (number * rate.log() - torch.lgamma(number + 1.0)).log_softmax(-1)
    count = allocate.exact_total(score, allowed, total)
    assert torch.equal(count.sum(1), total)
    for row in range(len(score)):
        assert value(score[row], count[row]) == pytest.approx(
            best_value(score[row], allowed[row], int(total[row])), abs=1e-4
        )


@pytest.mark.parametrize("seed", range(10))
def test_any_scores_come_close_to_the_optimum(seed: int) -> None:
    score, allowed, total = case(seed, 16, 8, 4, 2.0)
    count = allocate.exact_total(score, allowed, total)
    assert torch.equal(count.sum(1), total)
    assert not count[~allowed].any()
    assert int(count.min()) >= 0
    assert int(count.max()) <= 4
    lost = [best_value(score[r], allowed[r], int(total[r])) - value(score[r], count[r]) for r in range(len(score))]
    assert min(lost) > -1e-4
    # wild, non-concave scores: what is lost is about one gap's jump in the whole sample
    assert sum(lost) / len(lost) < 0.2
    assert max(lost) < 2.0


def test_the_total_of_the_likely_counts_gives_the_likely_counts() -> None:
    score, allowed, _ = case(3, 32, 20, 8, 2.0)
    likely = allocate.most_likely(score, allowed)
    assert torch.equal(allocate.exact_total(score, allowed, likely.sum(1)), likely)
    assert torch.equal(allocate.at_most(score, allowed, likely.sum(1) + 5), likely)
    bounded = allocate.at_most(score, allowed, likely.sum(1) - 3)
    assert torch.equal(bounded.sum(1), (likely.sum(1) - 3).clamp_min(0))


def test_ties_and_ends() -> None:
    """Equal gaps are opened from the left; nothing and everything are possible; more than everything is clamped."""
    score = torch.zeros(4, 6, 4).log_softmax(-1)
    allowed = torch.ones(4, 6, dtype=torch.bool)
    count = allocate.exact_total(score, allowed, torch.tensor([0, 4, 18, 99]))
    assert count.sum(1).tolist() == [0, 4, 18, 18]
    assert count[1].tolist() == sorted(count[1].tolist(), reverse=True)
    none = torch.zeros(4, 6, dtype=torch.bool)
    assert not allocate.exact_total(score, none, torch.full((4,), 3)).any()
    assert allocate.exact_total(score[:, :0], none[:, :0], torch.full((4,), 3)).shape == (4, 0)


def test_thousands_of_gaps_and_companions_change_nothing() -> None:
    score, allowed, total = case(1, 3, 3000, 8, 1.0)
    together = allocate.exact_total(score, allowed, total)
    assert torch.equal(together.sum(1), total)
    alone = torch.cat([allocate.exact_total(score[r : r + 1], allowed[r : r + 1], total[r : r + 1]) for r in range(3)])
    assert torch.equal(together, alone)


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(4000, 1, 3)
    uniform = torch.rand(4000, 1, 3, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    gumbel = -torch.log(-torch.log(uniform))
    score = allocate.count_scores(logits, torch.full((4000,), 2.0), gumbel)
    drawn = allocate.most_likely(score, torch.ones(4000, 1, dtype=torch.bool)).flatten()
    share = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(share, torch.softmax(logits[0, 0] / 2, 0), atol=0.03)
    cold = allocate.count_scores(logits, torch.zeros(4000), gumbel)
    assert torch.equal(cold.argmax(-1), torch.ones(4000, 1, dtype=torch.long))
