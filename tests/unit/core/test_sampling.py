"""Choosing tokens: what the parameters refuse, what the rules allow, and how often each token is drawn."""

import math
from dataclasses import fields

import pytest
import torch

from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.ops import sampling
from dualmask.ops.sampling import SamplingBatch

SLOTS, VOCABULARY = 4000, 12
CPU = torch.device("cpu")


def draw(
    temperature: float, top_p: float, seed: int = 0, min_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(VOCABULARY, generator=generator).mul(2).expand(SLOTS, VOCABULARY)
    allowed = (torch.arange(VOCABULARY) % 4 != 0).expand(SLOTS, VOCABULARY)
    uniform = torch.rand(SLOTS, generator=generator).clamp(1e-6, 1 - 1e-6)
    params = SamplingParams(temperature=temperature, top_p=top_p, min_p=min_p)
    token, confidence = sampling.choose(logits, allowed, uniform, SamplingBatch.of([params] * SLOTS, CPU))
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


@pytest.mark.parametrize("top_p", [0.7, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 100.0])
def test_min_p_of_0_changes_nothing_and_of_1_is_greedy(temperature: float, top_p: float) -> None:
    for seed in range(20):
        with_default, greedy = (draw(temperature, top_p, seed), draw(0.0, 1.0, seed))
        for one, other in (
            (draw(temperature, top_p, seed, min_p=0.0), with_default),
            (draw(temperature, top_p, seed, min_p=1.0), greedy),
        ):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("min_p", [1e-3, 0.1, 0.5])
@pytest.mark.parametrize("top_p", [0.6, 0.95, 1.0])
def test_min_p_keeps_what_is_near_the_likeliest_and_top_p_has_its_say(
    temperature: float, min_p: float, top_p: float
) -> None:
    """{p ≥ min_p · max p} of the tempered distribution, and of these what the nucleus holds."""
    generator = torch.Generator().manual_seed(0)
    prob = (torch.randn(50, 30, generator=generator) * 2 / temperature).softmax(-1)
    batch = SamplingBatch.of([SamplingParams(temperature, top_p=top_p, min_p=min_p)] * 50, CPU)
    kept = sampling.may_be_drawn(prob, batch)
    near = torch.tensor([[p >= min_p * max(row) for p in row] for row in prob.double().tolist()])
    inside = sampling.may_be_drawn(prob, SamplingBatch.of([SamplingParams(top_p=top_p)] * 50, CPU))
    assert torch.equal(kept, near & inside)
    assert kept.any(1).all()
    token, _, logits = draw(temperature, top_p, min_p=min_p)
    shares = (logits / temperature).softmax(0)
    assert (shares[token] >= min_p * shares.max()).all()


def test_draws_with_min_p_follow_what_is_left() -> None:
    token, confidence, logits = draw(2.0, 1.0, min_p=0.3)
    prob = (logits / 2).softmax(0)
    left = prob * (prob >= 0.3 * prob.max())
    assert 2 <= (left > 0).sum() < (prob > 0).sum()
    share = torch.bincount(token, minlength=VOCABULARY) / SLOTS
    assert torch.allclose(share, left / left.sum(), atol=0.03)
    assert torch.allclose(confidence, logits.softmax(0)[token])


def test_each_row_of_a_batch_obeys_its_own_parameters() -> None:
    """Requests of any parameters may be mixed: each gets what it gets alone."""
    params = [
        SamplingParams(temperature, top_p=top_p, min_p=min_p, seed=2**62 + 1, fill_steps=3, remask=temperature > 1)
        for temperature in (0.0, 0.5, 1.0, 2.0)
        for top_p in (0.2, 0.7, 0.9999999, 1.0)
        for min_p in (0.0, 0.3, 1.0)
    ]
    batch = SamplingBatch.of(params, CPU)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(params), 100, generator=generator) * 3
    uniform = torch.rand(len(params), generator=generator)
    allowed = torch.ones_like(logits, dtype=torch.bool)
    together = sampling.choose(logits, allowed, uniform, batch)
    for row, one in enumerate(params):
        index, alone = torch.tensor([row]), SamplingBatch.of([one], CPU)
        for own in (alone, batch.rows(index)):
            assert (own.seed.item(), own.fill_steps.item()) == (one.seed, one.fill_steps)
            assert own.remask.item() == one.remask
            token, confidence = sampling.choose(logits[index], allowed[index], uniform[index], own)
            assert torch.equal(token[0], together[0][row])
            assert torch.equal(confidence[0], together[1][row])


def test_a_rule_is_a_parameter_that_is_off_by_default() -> None:
    assert set(sampling.TRUNCATIONS) <= {parameter.name for parameter in fields(SamplingParams)}
    assert SamplingBatch.of([GREEDY, SamplingParams(temperature=1.0)], CPU).limits == {}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temperature": -1.0}, "temperature -1.0 is not possible: give 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": 101.0}, "temperature 101"),
        ({"place_temperature": -1.0}, "place temperature -1.0"),
        ({"top_p": 0.0}, "top-p 0.0"),
        ({"top_p": 1.5}, "top-p 1.5"),
        ({"min_p": -0.1}, "min-p -0.1"),
        ({"min_p": 1.1}, r"min-p 1.1 is not possible: give 0 \(no limit\) … 1 \(the likeliest\)"),
        ({"min_p": float("nan")}, "min-p nan"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "seed 9223372036854775808"),
        ({"fill_steps": 0}, "fill steps 0"),
    ],
)
def test_impossible_parameters_name_option_and_value(parameters: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingParams(**parameters)


def test_seeds_change_nothing_else() -> None:
    params = SamplingParams(temperature=0.7, top_p=0.9)
    assert params.with_seeds([4, 5]) == [SamplingParams(temperature=0.7, top_p=0.9, seed=seed) for seed in (4, 5)]


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


def test_least_confident() -> None:
    confidence = torch.tensor([[0.9, 0.1, 0.5, 0.5, 0.2]])
    among = torch.tensor([[True, False, True, True, True]])
    assert sampling.least_confident(confidence, among, torch.tensor([2])).tolist() == [
        [False, False, False, True, True]
    ]
    assert not sampling.least_confident(confidence, among, torch.tensor([0])).any()
    assert torch.equal(sampling.least_confident(confidence, among, torch.tensor([9])), among)
