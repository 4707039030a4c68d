import math

import pytest
import torch

from dualmask.core import sampling

SLOTS, VOCABULARY = 4000, 12


def draw(temperature: float, top_p: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(VOCABULARY, generator=generator).mul(2).expand(SLOTS, VOCABULARY)
    allowed = (torch.arange(VOCABULARY) % 4 != 0).expand(SLOTS, VOCABULARY)
    uniform = torch.rand(SLOTS, generator=generator).clamp(1e-6, 1 - 1e-6)
    full = torch.full((SLOTS,), 1.0)
    token, confidence = sampling.choose(logits, allowed, uniform, temperature * full, top_p * full)
    prob = logits[0].masked_fill(~allowed[0], float("-inf"))
    return token, confidence, prob


def test_temperature_zero_is_the_most_likely_allowed_token() -> None:
    token, confidence, logits = draw(0.0, 1.0)
    assert (token == logits.argmax()).all()
    assert torch.allclose(confidence, logits.softmax(0).max())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    token, confidence, logits = draw(temperature, 1.0)
    share = torch.bincount(token, minlength=VOCABULARY) / SLOTS
    assert torch.allclose(share, (logits / temperature).softmax(0), atol=0.03)
    assert torch.allclose(confidence, logits.softmax(0)[token])


def test_top_p_draws_from_the_smallest_sufficient_set() -> None:
    token, _, logits = draw(1.0, 0.7)
    ordered, index = logits.softmax(0).sort(descending=True)
    nucleus = index[: int((ordered.cumsum(0) < 0.7).sum()) + 1]
    assert set(token.tolist()) == set(nucleus.tolist())
    assert set(draw(1.0, 1e-6)[0].tolist()) == {int(logits.argmax())}


def test_a_nearly_cold_draw_is_greedy() -> None:
    assert torch.equal(draw(1e-5, 1.0)[0], draw(0.0, 1.0)[0])


def test_fill_schedule_decides_something_each_step_and_ends_with_nothing_open() -> None:
    slots = torch.tensor([0, 1, 3, 10, 100, 10])
    steps = torch.tensor([4, 4, 4, 1, 8, 20])
    left = slots
    for step in range(int(steps.max())):
        now = sampling.still_open(slots, step, steps)
        assert ((now < left) | (left == 0)).all()
        left = now
        assert (left[steps <= step + 1] == 0).all()
    half = sampling.still_open(torch.tensor([100]), 3, torch.tensor([8]))
    assert int(half) == math.floor(100 * math.cos(math.pi / 4))


def test_least_sure() -> None:
    confidence = torch.tensor([[0.9, 0.1, 0.5, 0.5, 0.2]])
    among = torch.tensor([[True, False, True, True, True]])
    assert sampling.least_sure(confidence, among, torch.tensor([2])).tolist() == [[False, False, False, True, True]]
    assert not sampling.least_sure(confidence, among, torch.tensor([0])).any()
    assert torch.equal(sampling.least_sure(confidence, among, torch.tensor([9])), among)
