"""Laws of spans: their boundaries, the order in which positions are filled, and the sums of stop probabilities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_span import WIDTH, make_texts

from dualmask.core import noise
from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.families.span import spans

KEYS = torch.arange(20_000) * 7919 + 1


@given(st.integers(1, 64), st.integers(1, 16))
def test_the_steps_write_every_place(width: int, steps: int) -> None:
    """And no fewer places a step would do."""
    number = spans.places_a_step(width, steps)
    assert number * steps >= width > (number - 1) * steps


places = st.integers(1, 12).flatmap(
    lambda width: st.tuples(
        st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.0]), min_size=width, max_size=width),
        st.lists(st.booleans(), min_size=width, max_size=width),
        st.integers(0, 14),
    )
)


@given(places)
def test_picked_are_the_highest_open_places(drawn: tuple[list[float], list[bool], int]) -> None:
    """Of equals the left ones; as many as requested, or all that are open."""
    score, open_, number = drawn
    seen = spans.pick(torch.tensor([score]), torch.tensor([open_]), number)[0].nonzero().flatten().tolist()
    ranked = sorted((position for position, free in enumerate(open_) if free), key=lambda position: -score[position])
    assert seen == sorted(ranked[:number])


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**20))
def test_a_span_is_written_once_and_whole(width: int, steps: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    open_ = torch.ones(3, width, dtype=torch.bool)
    written = torch.zeros(3, width, dtype=torch.long)
    for _ in range(steps):
        pick = spans.pick(torch.randn(3, width, generator=draw), open_, spans.places_a_step(width, steps))
        written, open_ = written + pick, open_ & ~pick
    assert (written == 1).all()


def test_each_text_has_a_number_of_its_own() -> None:
    score, open_ = torch.arange(4.0).expand(3, 4), torch.ones(3, 4, dtype=torch.bool)
    assert spans.pick(score, open_, torch.tensor([0, 1, 9])).sum(1).tolist() == [0, 1, 4]


def test_a_span_is_what_follows_its_prompt() -> None:
    batch = make_texts(60)
    cut = spans.cut(batch, 3, 7)
    for row in range(60):
        text, prompt = batch.tokens[row, : batch.length[row]].tolist(), int(cut.prompt_length[row])
        assert 1 <= prompt < len(text)
        assert cut.target[row].tolist() == (text[prompt:] + [EOS_ID] * 7)[:7]
        assert cut.position[row].tolist() == list(range(prompt, prompt + 7))
    assert not (cut.target == BOS_ID).any()


def test_prompts_of_every_length_come_up_and_are_the_texts_own() -> None:
    batch = make_texts(600)
    first, later, alone = spans.cut(batch, 3, 5), spans.cut(batch, 4, 5), spans.cut(batch.rows(slice(7, 8)), 3, 5)
    whole = batch.length == WIDTH
    assert set(first.prompt_length[whole].tolist()) == set(range(1, WIDTH))
    assert not torch.equal(first.prompt_length, later.prompt_length)
    assert torch.equal(alone.target, first.target[7:8])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_chances_of_stopping_are_a_distribution(go_on: list[float]) -> None:
    weights = spans.stop_weights(torch.tensor([go_on], dtype=torch.float64))[0]
    assert weights.sum().item() == pytest.approx(1)
    assert (weights >= 0).all()
    reached = 1.0
    for chance, weight in zip(go_on[:-1], weights.tolist(), strict=False):
        assert weight == pytest.approx(reached * (1 - chance))
        reached *= chance
    assert weights[-1].item() == pytest.approx(reached)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_expected_steps_are_the_mean_number(go_on: list[float]) -> None:
    """E[g] = Σ_t Π_{s<t} c_s, whatever the gate would say behind the last step."""
    chances = torch.tensor([go_on], dtype=torch.float64)
    expected = sum(torch.tensor(go_on[:step], dtype=torch.float64).prod().item() for step in range(len(go_on)))
    assert spans.expected_steps(spans.stop_weights(chances)).item() == pytest.approx(expected)


@pytest.mark.parametrize("stop", range(4))
def test_a_sure_gate_stops_where_it_says(stop: int) -> None:
    go_on = torch.ones(1, 4)
    go_on[0, stop] = 0
    weights = spans.stop_weights(go_on)
    assert weights[0].tolist() == [float(step == stop) for step in range(4)]
    assert spans.expected_steps(weights).item() == stop + 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_drawn_stops_are_whole_steps_and_right_on_average(temperature: float) -> None:
    logits = torch.tensor([[0.3, 0.1], [-0.4, 0.9], [0.0, -1.0], [0.0, 0.0]])
    gumbel = noise.gumbel(KEYS, "gate", 5, 4, 2)
    go_on = spans.drawn_continue(logits.expand(len(KEYS), 4, 2), gumbel, temperature)
    assert set(go_on.unique().tolist()) == {0.0, 1.0}
    steps = spans.expected_steps(spans.stop_weights(go_on))
    assert set(steps.tolist()) == {1.0, 2.0, 3.0, 4.0}
    exact = spans.expected_steps(spans.stop_weights(logits.softmax(-1)[None, :, 1]))
    assert steps.mean().item() == pytest.approx(exact.item(), abs=4 * steps.std().item() / len(KEYS) ** 0.5)


def test_the_slope_of_a_drawn_stop_is_that_of_its_relaxation() -> None:
    """And points where the exact one does: more continuing, more steps."""
    logits = torch.zeros(len(KEYS), 4, 2, requires_grad=True)
    gumbel = noise.gumbel(KEYS, "gate", 5, 4, 2)
    (slope,) = torch.autograd.grad(spans.drawn_continue(logits, gumbel, 0.7).sum(), [logits])
    relaxed = ((logits + gumbel) / 0.7).softmax(-1)[..., 1]
    (expected,) = torch.autograd.grad(relaxed.sum(), [logits])
    torch.testing.assert_close(slope, expected)
    drawn = spans.expected_steps(spans.stop_weights(spans.drawn_continue(logits, gumbel, 0.7)))
    (slope,) = torch.autograd.grad(drawn.mean(), [logits])
    mean = slope.sum(0)
    assert (mean[:3, 1] > 0).all()
    assert (mean[:3, 0] < 0).all()
    assert not mean[3].any()


def test_mean_over_nothing_is_nothing() -> None:
    value = torch.tensor([[1.0, 3.0, 8.0], [1.0, 3.0, 8.0]])
    where = torch.tensor([[True, True, False], [False, False, False]])
    assert spans.mean_over(value, where).tolist() == [2.0, 0.0]
