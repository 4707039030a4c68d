"""Spans that SpanFusionLM writes: the seed's own loop gives the same, and neither the cache nor companions matter."""

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_span import VOCAB, make_model

from dualmask.core.batch import Batch
from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PRED_ID, SPECIAL_IDS
from dualmask.families.span import generate as span
from dualmask.families.span import spans
from dualmask.families.span.generate import Gate, SpanTrace, Written
from dualmask.families.span.model import REACH, SpanFusion
from dualmask.families.span.request import SpanOptions, parse_gate
from dualmask.inference import autoregressive

LENGTH = 64
GATES: tuple[Gate, ...] = ("learned", "fast", "accurate", 2)


def make(*, seed: int = 0, **parts: Any) -> SpanFusion:
    """Its gate stops at about half of the spans."""
    model = make_model(**parts).eval().requires_grad_(False)
    model.config = model.config.model_copy(update={"max_length": LENGTH})
    for name, parameter in model.named_parameters():
        if seed and parameter.ndim > 1 and "neighbours" not in name:
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
    first = [text.spans[0].entropy[0] for text in write(model, texts(20), tokens=6, gate="fast")]
    logits = model.gate(torch.tensor(first))
    model.gate.last.bias[1] += (logits[:, 0] - logits[:, 1]).median()
    return model


def favour(model: SpanFusion, token: int) -> None:
    bias = (model.projection or model.table).output_bias
    assert bias is not None
    bias[token] = 1000.0


def texts(number: int, longest: int = 30) -> list[list[int]]:
    """Prompts of 0 to ``longest`` tokens, the empty one first."""
    draw = random.Random(number)
    return [[draw.randrange(6, VOCAB) for _ in range(draw.randint(0, longest) if row else 0)] for row in range(number)]


def write(model: SpanFusion, prompts: list[list[int]], **options: Any) -> list[Written]:
    known: dict[str, Any] = {"span": 6, "sampling": GREEDY.with_seeds(range(100, 100 + len(prompts)))}
    return span.write(model, prompts, **known | options)


def seeded(number: int, first: int = 100, **parameters: float) -> list[SamplingParams]:
    return SamplingParams(**parameters).with_seeds(range(first, first + number))


@pytest.fixture(scope="module")
def model() -> SpanFusion:
    return make()


def slow(model: SpanFusion, prompt: list[int], tokens: int, width: int, gate: str, least: int = 0) -> Written:
    """Seed 004, sections 3 and 8, for one text without a draw: the whole sequence is read again in each step.

    Repairs: the gate reads the open places, a stop fills them all, "fast" stops and "accurate" goes on.
    """
    seq, traces = [BOS_ID, *prompt], []
    while len(seq) < 1 + len(prompt) + tokens and EOS_ID not in seq:
        n_prompt = len(seq)
        here = min(width, 1 + len(prompt) + tokens - n_prompt)
        seq += [PRED_ID] * here
        z, left, entropy, order = model.table(torch.tensor([seq[n_prompt:]])), list(range(here)), [], [0] * here
        confidence = [0.0] * here
        position = torch.arange(len(seq)).float()[None]
        while left:
            row = torch.tensor([seq])
            h = model.decoder(model.table(row), position, torch.ones_like(row, dtype=torch.bool))[:, n_prompt:]
            log_prob = model.project(h[0]).log_softmax(-1)
            nats = -(log_prob.exp() * log_prob).sum(-1)
            z = model.encoder(z, h, position[:, n_prompt:])
            logits = model.project(z[0])[:, :VOCAB].clone()
            logits[:, [*(SPECIAL_IDS - {EOS_ID})]] = -torch.inf
            logits[: max(least - (n_prompt - 1 - len(prompt)), 0), EOS_ID] = -torch.inf
            entropy.append(nats[left].mean().item())
            go_on = model.gate(nats[left].mean()[None])[0].argmax() == 1
            stop = {"learned": not go_on, "fast": True, "accurate": False}[gate]
            number = here if stop else -(-here // model.span.g_max)
            for column in sorted(left, key=lambda column: -nats[column].item())[:number]:
                seq[n_prompt + column] = int(logits[column].argmax())
                order[column], confidence[column] = len(entropy) - 1, logits[column].softmax(-1).max().item()
                left.remove(column)
        position = n_prompt - 1 - len(prompt)
        traces.append(SpanTrace(position, tuple(entropy), len(entropy), tuple(order), tuple(confidence)))
    return Written(autoregressive.until_end(seq[1 + len(prompt) :]), tuple(traces))


def same(one: Written, other: Written) -> bool:
    """Token for token and step for step."""
    what = [(text.ids, [(s.position, s.steps, s.order) for s in text.spans]) for text in (one, other)]
    for span_of_one, span_of_other in zip(one.spans, other.spans, strict=True):
        assert span_of_one.entropy == pytest.approx(span_of_other.entropy, abs=1e-4)
        assert span_of_one.confidence == pytest.approx(span_of_other.confidence, abs=1e-4)
    return what[0] == what[1]


@pytest.mark.parametrize("gate", ["learned", "fast", "accurate"])
@pytest.mark.parametrize("width", [1, 5, 8])
def test_a_text_is_what_the_loop_of_the_seed_writes(model: SpanFusion, gate: str, width: int) -> None:
    prompts = texts(12)
    written = write(model, prompts, tokens=18, span=width, gate=gate, least=3)
    for prompt, text in zip(prompts, written, strict=True):
        assert same(text, slow(model, prompt, 18, width, gate, least=3))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("parameters", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.7}])
def test_the_cache_changes_nothing_over_200_prompts(
    model: SpanFusion, gate: Gate, parameters: dict[str, float]
) -> None:
    prompts, sampling = texts(200), seeded(200, **parameters)
    cached, whole = (
        write(model, prompts, tokens=20, gate=gate, cached=flag, sampling=sampling) for flag in (True, False)
    )
    assert all(map(same, cached, whole))
    assert max(len(text.spans) for text in cached) == 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_companions_change_nothing(model: SpanFusion, temperature: float) -> None:
    prompts = texts(61)
    sampling = seeded(61, temperature=temperature)
    together = write(model, prompts, tokens=20, sampling=sampling)
    for prompt, own, text in zip(prompts, sampling, together, strict=True):
        assert same(text, *write(model, [prompt], tokens=20, sampling=[own]))
    other = write(model, prompts, tokens=20, sampling=seeded(61, first=0, temperature=temperature))
    assert (together == other) == (temperature == 0)


def test_what_is_left_when_others_stop_costs_nothing(model: SpanFusion) -> None:
    """The decoder's passes are the steps of the texts; the first step of a span reads what stands in front, once."""
    prompts = texts(30)
    passes: list[tuple[int, int]] = []

    def note(module: torch.nn.Module, inputs: object, states: torch.Tensor) -> None:
        passes.append((len(states), states.shape[1]))

    handle = model.decoder.register_forward_hook(note)
    written = write(model, prompts, tokens=18)
    handle.remove()
    steps = [step for text in written for step in text.spans]
    assert len({step.steps for step in steps}) > 1
    assert sum(rows for rows, _ in passes) == sum(step.steps for step in steps)
    read = [width for _, width in passes]
    assert read[0] == max(map(len, prompts)) + 1 + 6
    assert set(read[1:]) == {6, 12}
    assert read.count(12) == 2  # the second and the third span read the one before


@pytest.mark.parametrize(
    ("gate", "width", "steps"),
    [
        ("fast", 8, [8]),
        ("accurate", 8, [2, 2, 2, 2]),
        (1, 8, [8]),
        (2, 8, [2, 6]),
        (3, 8, [2, 2, 4]),
        (4, 8, [2, 2, 2, 2]),
        ("accurate", 1, [1]),
        ("accurate", 5, [2, 2, 1]),
        (2, 5, [2, 3]),
        ("accurate", 3, [1, 1, 1]),
    ],
)
def test_gates_take_the_steps_that_they_name(model: SpanFusion, gate: Gate, width: int, steps: list[int]) -> None:
    for text in write(model, texts(4), tokens=2 * width, span=width, gate=gate, least=2 * width):
        for done in text.spans:
            assert [done.order.count(step) for step in range(done.steps)] == steps
            assert len(done.entropy) == done.steps
            assert all(0 < confidence <= 1 for confidence in done.confidence)


def test_the_learned_gate_stops_each_text_for_itself(model: SpanFusion) -> None:
    by_steps: dict[int, list[float]] = {}
    for text in write(model, texts(60), tokens=6):
        by_steps.setdefault(text.spans[0].steps, []).append(text.spans[0].entropy[0])
        on = model.gate(torch.tensor(text.spans[0].entropy)).argmax(-1).tolist()
        assert on[: text.spans[0].steps - 1] == [1] * (text.spans[0].steps - 1)
        assert on[-1] == 0 or text.spans[0].steps == 3  # 2 of 6 places a step: then nothing is open
    assert min(map(len, by_steps.values())) >= 3
    assert len(by_steps) > 1


@given(
    seed=st.integers(1, 3),
    order=st.sampled_from(["entropy", "confidence"]),
    gate=st.sampled_from(GATES),
    width=st.integers(1, 20),
    tokens=st.integers(0, 30),
    temperature=st.sampled_from([0.0, 1.0, 100.0]),
    allow_all=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_nothing_special_is_ever_written(
    seed: int, order: str, gate: Gate, width: int, tokens: int, temperature: float, allow_all: bool
) -> None:
    model = make(seed=seed, fill_order=order, shared_projection=seed != 2)
    for special in SPECIAL_IDS - {EOS_ID}:
        favour(model, special)
    allowed = torch.ones(VOCAB, dtype=torch.bool) if allow_all else None
    sampling = seeded(8, temperature=temperature)
    for text in write(model, texts(8), tokens=tokens, span=width, gate=gate, allowed=allowed, sampling=sampling):
        assert not SPECIAL_IDS & set(text.ids)
        assert len(text.ids) <= tokens
        assert [len(done.order) for done in text.spans] == [
            min(width, tokens - first) for first in range(0, tokens, width)
        ][: len(text.spans)]


def test_only_what_is_allowed_is_written(model: SpanFusion) -> None:
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[10, 20, 30]] = True
    written = write(model, texts(8), tokens=20, sampling=seeded(8, temperature=1.0), allowed=allowed)
    assert {token for text in written for token in text.ids} == {10, 20, 30}
    assert all(len(text.ids) == 20 for text in written)  # EOS is not allowed
    with pytest.raises(ValueError, match="no ordinary token"):
        write(model, texts(2), tokens=4, allowed=torch.arange(VOCAB) < 6)


def test_min_p_bounds_what_a_span_holds(model: SpanFusion) -> None:
    """Spans of one step, against the look of the training pass at the same positions."""
    prompt, temperature, min_p = texts(3)[2], 2.0, 0.9
    length = torch.tensor([1 + len(prompt)])
    _, prefix = model(Batch(torch.tensor([[BOS_ID, *prompt]]), length, length))
    look = model.look(model.begin(1, 6), spans.positions(length, 6), prefix.up_to(length, REACH))
    logits = look.logits[:, :VOCAB].detach().clone()
    logits[:, list(SPECIAL_IDS)] = -torch.inf
    prob = (logits / temperature).softmax(-1)
    lowest = {}
    for limit in (0.0, min_p):
        sampling = seeded(40, temperature=temperature, min_p=limit)
        written = write(model, [prompt] * 40, tokens=6, least=6, gate="fast", sampling=sampling)
        ids = torch.tensor([text.ids for text in written])
        lowest[limit] = (prob.expand(40, 6, VOCAB).gather(2, ids[..., None]).squeeze(2) / prob.amax(1)).min().item()
    assert lowest[min_p] >= min_p - 1e-4
    assert lowest[0.0] < min_p / 2


def test_a_text_ends_at_eos_but_not_too_early() -> None:
    model = make()
    favour(model, EOS_ID)
    passes: list[int] = []
    written = write(model, texts(5), tokens=20)
    assert [(text.ids, len(text.spans)) for text in written] == [([], 1)] * 5
    for cached in (True, False):
        written = write(model, texts(5), tokens=20, least=9, cached=cached)
        assert [(len(text.ids), len(text.spans)) for text in written] == [(9, 2)] * 5
    handle = model.decoder.register_forward_hook(lambda module, inputs, out: passes.append(len(out)))
    write(model, texts(5), tokens=20, gate="fast")
    handle.remove()
    assert passes == [5]  # nobody is waited for


def test_what_does_not_fit_is_one_clear_line(model: SpanFusion) -> None:
    prompt = texts(2, longest=5)[1]
    room = LENGTH - 1 - len(prompt)
    fits = write(model, [prompt], tokens=room, span=50, least=room)
    assert [len(text.ids) for text in fits] == [room]
    assert [len(done.order) for done in fits[0].spans] == [50, room - 50]
    for long, remedy in (([9] * 60, "write at most 3"), ([9] * 99, "shorten it to 62 or fewer")):
        with pytest.raises(ValueError, match=remedy) as caught:
            write(model, [prompt, long], tokens=10)
        assert f"{len(long)} tokens and 10 to write" in str(caught.value)
        assert "\n" not in str(caught.value)
    for gate in (0, 5):
        with pytest.raises(ValueError, match=f"gate fixed:{gate} .* g_max=4"):
            write(model, [prompt], tokens=4, gate=gate)
    with pytest.raises(ValueError, match="span 0"):
        write(model, [prompt], tokens=4, span=0)
    assert write(model, [], tokens=4) == []
    assert write(model, [prompt], tokens=0) == [Written([], ())]


def test_gates_by_name() -> None:
    for name in ("learned", "fast", "accurate", "verified"):
        assert parse_gate(name) == name
    assert parse_gate("fixed:3") == 3
    for wrong in ("", "slow", "fixed", "fixed:0", "fixed:-1", "fixed:x", "learned:2"):
        with pytest.raises(ValueError, match="learned, fast, accurate, verified or fixed:n"):
            parse_gate(wrong)


def test_without_a_number_as_many_tokens_as_fit() -> None:
    assert [SpanOptions().room(prompt, 100) for prompt in (0, 35, 36, 90, 98)] == [64, 64, 63, 9, 1]
    with pytest.raises(ValueError, match="shorten it to 98 or fewer"):
        SpanOptions().room(99, 100)
    with pytest.raises(ValueError, match="write at most 9"):
        SpanOptions(tokens=10).room(90, 100)


def test_a_look_behind_a_past_is_the_decoder_over_the_whole_text(model: SpanFusion) -> None:
    """Teacher-forced: the true tokens stand in the span, some of its places are open; prompts of mixed lengths."""
    prompts = [[BOS_ID, *prompt] for prompt in texts(16)]
    length = torch.tensor(list(map(len, prompts)))
    padded = torch.tensor([prompt + [9] * (40 - len(prompt)) for prompt in prompts])  # the padding is never looked at
    _, prefix = model(Batch(padded, length, length))
    draw = torch.Generator().manual_seed(0)
    state = model.begin(16, 6)
    there = torch.rand(16, 6, generator=draw) < 0.5
    gold = torch.randint(6, VOCAB, (16, 6), generator=draw)
    tokens = torch.where(there, gold, PRED_ID)
    state = type(state)(tokens, ~there, state.z)
    position = spans.positions(length, 6)
    look = model.look(state, position, prefix.up_to(length, REACH))
    for row, prompt in enumerate(prompts):
        whole = torch.tensor([prompt + tokens[row].tolist()])
        positions = torch.arange(whole.shape[1]).float()[None]
        h = model.decoder(model.table(whole), positions, torch.ones_like(whole, dtype=torch.bool))[0, -6:]
        assert torch.allclose(look.pred_logits.view(16, 6, -1)[row], model.project(h), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_its_decoder_writes_alone_too(model: SpanFusion, temperature: float) -> None:
    prompts, sampling = texts(6), seeded(6, first=0, temperature=temperature)
    together = autoregressive.write(model, prompts, tokens=20, sampling=sampling)
    assert together == autoregressive.write(model, prompts, tokens=20, sampling=sampling, cached=False)
    for prompt, own, text in zip(prompts, sampling, together, strict=True):
        assert [text] == autoregressive.write(model, [prompt], tokens=20, sampling=[own])


def test_its_decoder_writes_what_its_training_pass_finds_likeliest(model: SpanFusion) -> None:
    prompt = texts(3)[2]
    (text,) = autoregressive.write(model, [prompt], tokens=12, least=12, sampling=[GREEDY])
    row = torch.tensor([[BOS_ID, *prompt, *text]])
    out, _ = model(Batch(row, torch.tensor([row.shape[1]]), torch.tensor([0])))
    logits = out.logits[len(prompt) :, :VOCAB].clone()
    logits[:, list(SPECIAL_IDS)] = -torch.inf
    assert logits.argmax(-1).tolist() == text
