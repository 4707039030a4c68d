"""Spans refined in training are those of the seed, written out slowly, and depend on nothing but their own text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from stages import make_stage
from tiny_span import PARTS, SPAN, VOCAB, make_model, make_texts, span_plan
from torch import Tensor
from torch.nn.functional import cross_entropy

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import EOS_ID, PAD_ID, PRED_ID, SPECIAL_IDS
from dualmask.curriculum import plan_at
from dualmask.families.span import rollout as span_rollout
from dualmask.families.span import spans
from dualmask.families.span.block import SpanBlock
from dualmask.families.span.losses import span_loss, stop_costs
from dualmask.families.span.model import REACH, SpanFusion
from dualmask.families.span.outputs import SpanOut
from dualmask.families.span.rollout import Step, play, rollout, span_length
from dualmask.families.span.task import DecoderTask, SpanTask
from dualmask.nn.block import Block
from dualmask.nn.parallel import mesh

ORDERS = ("entropy", "confidence")
EVERY_TEXT = range(6)


@dataclass
class SlowStep:
    z: Tensor  # [K, D]
    logits: Tensor  # [K, V]
    entropy: Tensor  # [K]
    mean_entropy: float
    open: list[int]
    pick: list[int]


def slow(model: SpanFusion, prompt: Tensor, width: int, gold: Tensor | None) -> list[SlowStep]:
    """Seed 004, section 3, for one text: the whole sequence through the decoder in each step. ``gold``: what is
    written; None: the likeliest token. The mean entropy is that of the open places."""
    n_prompt, g_max = len(prompt), model.span.g_max
    seq = torch.cat([prompt, torch.full((width,), PRED_ID)])
    position = torch.arange(len(seq)).float()[None]
    z = model.table(seq[None, n_prompt:])
    left, steps = list(range(width)), []
    for _ in range(g_max):
        h = model.decoder(model.table(seq[None]), position, torch.ones(1, len(seq), dtype=torch.bool))[:, n_prompt:]
        log_prob = model.project(h[0]).log_softmax(-1)
        entropy = -(log_prob.exp() * log_prob).sum(-1)
        z = model.encoder(z + h if model.span.skip else z, h, position[:, n_prompt:])
        logits = model.project(z[0])
        able = logits[:, :VOCAB].clone()
        able[:, [*(SPECIAL_IDS - {EOS_ID})]] = -torch.inf
        score = entropy if model.span.fill_order == "entropy" else able.amax(-1) - logits.logsumexp(-1)
        pick = sorted(left, key=lambda place: -score[place].item())[: -(-width // g_max)]
        mean = entropy[left].mean().item() if left else 0.0
        steps.append(SlowStep(z[0], logits, entropy, mean, left, sorted(pick)))
        for place in pick:
            seq[n_prompt + place] = able[place].argmax() if gold is None else gold[place]
        left = [place for place in left if place not in pick]
    return steps


def fast(model: SpanFusion, batch: Batch, cut: spans.Spans, *, gold: bool) -> list[Step]:
    """What training does with the same spans: one pass over all texts, then the spans behind their prompts."""
    _, prefix = model(batch)
    write = span_rollout._likeliest(model)
    how = span_plan().stage.span
    assert how is not None
    width = cut.target.shape[1]
    told = (lambda look, turn: cut.target) if gold else write
    return play(model, prefix.up_to(cut.prompt_length, REACH), spans.positions(cut.prompt_length, width), told, how)


@torch.no_grad()
@pytest.mark.parametrize("gold", [True, False], ids=["gold", "likeliest"])
@pytest.mark.parametrize(
    ("width", "parts"),
    [(6, {}), (3, {}), (6, {"fill_order": "confidence"}), (6, {"skip": True}), (5, {"g_max": 1})],
    ids=str,
)
def test_the_steps_are_those_of_the_seed(width: int, parts: dict[str, Any], gold: bool) -> None:
    model, batch = make_model(**parts).eval(), make_texts()
    cut = spans.cut(batch, 5, width)
    assert len(cut.prompt_length.unique()) > 3
    steps = fast(model, batch, cut, gold=gold)
    for row in EVERY_TEXT:
        prompt = batch.tokens[row, : cut.prompt_length[row]]
        wanted = slow(model, prompt, width, cut.target[row] if gold else None)
        for step, want in zip(steps, wanted, strict=True):
            logits = step.look.logits.view(len(EVERY_TEXT), width, -1)
            torch.testing.assert_close(step.look.z[row], want.z, rtol=0, atol=1e-5)
            torch.testing.assert_close(logits[row], want.logits, rtol=1e-5, atol=2e-5)
            torch.testing.assert_close(step.look.entropy[row], want.entropy, rtol=0, atol=1e-5)
            assert step.look.mean_entropy[row].item() == pytest.approx(want.mean_entropy, abs=1e-5)
            assert step.before.open[row].nonzero().flatten().tolist() == want.open
            assert step.pick[row].nonzero().flatten().tolist() == want.pick


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_written_gold_is_the_likelihood_of_the_span(order: str) -> None:
    """−log p of the tokens in the order of writing, when the text stops behind each of the steps."""
    model, batch, plan = make_model(fill_order=order), make_texts(), span_plan(teacher_forcing=1.0)
    out, cut = rollout(model, batch, plan), spans.cut(batch, plan.step, SPAN)
    assert out.forced.all()
    costs = stop_costs(out).sum(-1)
    for row in EVERY_TEXT:
        steps = slow(model, batch.tokens[row, : cut.prompt_length[row]], SPAN, cut.target[row])
        written = torch.zeros(())
        for number, step in enumerate(steps):
            nats = cross_entropy(step.logits, cut.target[row], reduction="none")
            filled = sum(nats[place] for place in step.open if place not in step.pick)
            written = written + nats[step.pick].sum()
            torch.testing.assert_close(costs[row, number], written + filled, rtol=1e-5, atol=1e-4)


def by_row(out: SpanOut, row: int) -> dict[str, Tensor]:
    return {name: value[row] for name, value in vars(out).items() if isinstance(value, Tensor)}


@torch.no_grad()
@pytest.mark.parametrize("teacher", [True, False])
def test_companions_and_padding_mean_nothing(teacher: bool) -> None:
    """Each text alone, in a row as long as itself, and with noise for padding: the same draws, stops and losses."""
    model, batch, plan = make_model(), make_texts(), span_plan(teacher_forcing=0.3)
    tutor = make_model(fill_order="confidence") if teacher else None
    together = rollout(model, batch, plan, tutor)
    assert together.forced.any()
    assert not together.forced.all()
    noisy = torch.where(batch.present, batch.tokens, (batch.tokens + 7 + torch.arange(20)) % VOCAB)
    unclean = rollout(model, Batch(noisy, batch.length, batch.key), plan, tutor)
    for row in EVERY_TEXT:
        size = int(batch.length[row])
        alone = Batch(batch.tokens[row : row + 1, :size], batch.length[row : row + 1], batch.key[row : row + 1])
        single = rollout(model, alone, plan, tutor)
        for name, value in by_row(together, row).items():
            torch.testing.assert_close(by_row(single, 0)[name], value, rtol=1e-5, atol=2e-5, msg=name)
            torch.testing.assert_close(by_row(unclean, row)[name], value, rtol=1e-5, atol=2e-5, msg=name)
        mine = together.ar.slot // batch.tokens.shape[1] == row
        torch.testing.assert_close(single.ar.loss, together.ar.loss[mine], rtol=1e-5, atol=2e-5)


def test_a_loss_is_the_mean_of_the_losses_of_the_parts() -> None:
    """What makes ranks and gradient accumulation exact."""
    model, batch, plan = make_model(), make_texts(12), span_plan(teacher_forcing=0.5, explore=0.5)
    parts = [batch, batch.rows(slice(0, 6)), batch.rows(slice(6, 12))]
    whole, first, second = (span_loss(rollout(model, part, plan), part, plan) for part in parts)
    assert whole.total.item() == pytest.approx((first.total + second.total).item() / 2, rel=1e-6)


STAGES = {
    "seed": {"losses": {}, "gate_gradient": "none"},
    "every loss": {},
    "no latent, no gate": {"losses": {"latent": 0, "gate_cost": 0}, "gate_gradient": "none", "detach_entropy": True},
    "expected": {"gate_estimator": "expected", "explore": 1.0, "teacher_forcing": 1.0},
    "teacher": {"teacher": "ema", "detach_pred": False},
}


@pytest.mark.parametrize("g_max", [1, 4])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("how", STAGES)
def test_every_parameter_has_a_gradient_in_every_stage(how: str, shared: bool, g_max: int) -> None:
    """Be it zero: one without would keep that of the step before."""
    model, batch, plan = make_model(shared_projection=shared, g_max=g_max), make_texts(3), span_plan(**STAGES[how])
    task = SpanTask(model, plan.stage.span)
    task.window(batch, plan, range(1), None).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert task.teacher is None or all(p.grad is None for p in task.teacher.parameters())


def test_the_first_stage_teaches_all_of_the_decoder() -> None:
    model, batch = make_model(shared_projection=False), make_texts(3)
    first = make_stage({"name": "decoder", "steps": 1, "train": ["decoder"], "lr": {"peak": 1e-3}})
    DecoderTask(model).window(batch, plan_at([first], 0), range(1), None).total.backward()
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"table", "projection", "decoder"}
    assert all(p.grad is not None for p in model.decoder.parameters())


def gradients(model: SpanFusion, batch: Batch, **how: object) -> tuple[float, dict[str, Tensor]]:
    plan = span_plan(**how)
    loss = span_loss(rollout(model, batch, plan), batch, plan).total
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("detach_pred", [True, False])
def test_checkpointing_changes_no_gradient(detach_pred: bool) -> None:
    """Keys and values leave a checkpointed block by the prefix, not by its output. Each block is repeated once."""
    how = {"detach_pred": detach_pred, "teacher_forcing": 0.5, "gate_estimator": "expected"}
    batch = make_texts()
    loss, wanted = gradients(make_model(), batch, **how)
    calls = {Block: 0, SpanBlock: 0}

    def count(kind: type[Block] | type[SpanBlock]):
        original = kind.forward

        def forward(self, *arguments):
            calls[kind] += torch.is_grad_enabled()
            return original(self, *arguments)

        return patch.object(kind, "forward", forward)

    with count(Block), count(SpanBlock):
        again, seen = gradients(make_model(checkpointing=True), batch, **how)
    assert calls == {Block: 2 * 2 * (1 + 4), SpanBlock: 2 * 4}  # twice: (the text and 4 steps) · 2 blocks, 4 · 1
    assert again == loss
    assert seen.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (seen[name] - gradient).abs().max() <= 1e-6 * gradient.abs().max().clamp_min(1), name


def test_a_span_teaches_the_decoder_by_the_keys_of_its_prompt() -> None:
    """The gradient through the prompt's keys and values is that of the whole sequence."""
    model, batch, width = make_model(), make_texts(), 3
    cut = spans.cut(batch, 5, width)
    _, prefix = model(batch)
    state = model.begin(len(cut.target), width)
    look = model.look(state, cut.position, prefix.up_to(cut.prompt_length, REACH))
    by_past = torch.autograd.grad(look.z.pow(3).sum(), list(model.decoder.parameters()))
    total = torch.zeros(())
    for row in EVERY_TEXT:
        seq = torch.cat([batch.tokens[row, : cut.prompt_length[row]], state.tokens[row]])[None]
        position = torch.arange(seq.shape[1]).float()[None]
        h = model.decoder(model.table(seq), position, torch.ones_like(seq, dtype=torch.bool))[:, -width:]
        total = total + model.encoder(state.z[row : row + 1], h, position[:, -width:]).pow(3).sum()
    for mine, whole in zip(by_past, torch.autograd.grad(total, list(model.decoder.parameters())), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-5 * whole.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_nothing_special_is_ever_written(order: str) -> None:
    """However likely the model finds it; padded rows of the table included. EOS is a token like any other."""
    model, batch = make_model(fill_order=order), make_texts()
    assert model.table.output_bias is not None
    model.vocab_size = VOCAB - 3
    model.table.output_bias[[*(SPECIAL_IDS - {EOS_ID}), *range(VOCAB - 3, VOCAB)]] = 50.0
    seen: set[int] = set()
    original = play

    def listen(*arguments):
        steps = original(*arguments)
        for step in steps:
            seen.update(step.before.tokens[~step.before.open].tolist())
        return steps

    with patch.object(span_rollout, "play", listen):
        for step in range(20):
            rollout(model, batch, span_plan(step=step % 10, temperature=2.0, top_k=VOCAB))
    assert len(seen) > VOCAB // 2
    assert not seen & (SPECIAL_IDS - {EOS_ID})
    assert max(seen) < VOCAB - 3


def test_tokens_are_drawn_as_likely_as_they_are() -> None:
    """From the ``top_k`` likeliest, cut to the fewest that hold ``top_p``; with a temperature of 0 the likeliest."""
    mesh.single_process()
    places = torch.arange(20_000) * 7919
    logits = torch.full((len(places), VOCAB), -20.0)
    logits[:, 10:15] = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]).log()

    def shares(top_k: int = 32, **parameters: float) -> list[float]:
        def gumbel(token: Tensor) -> Tensor:
            return -torch.log(-torch.log(noise.uniform_at(places, "span", 1, token)))

        params = SamplingParams(**{"temperature": 1.0} | parameters)
        drawn = span_rollout.draw(logits, VOCAB, params, gumbel=gumbel, top_k=top_k)
        return [(drawn == token).double().mean().item() for token in range(10, 15)]

    near = partial(pytest.approx, abs=0.015)
    assert shares() == near([0.05, 0.4, 0.1, 0.3, 0.15])
    assert shares(top_k=2) == near([0, 4 / 7, 0, 3 / 7, 0])
    assert shares(top_p=0.71) == near([0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85])
    assert shares(top_p=0.69) == near([0, 4 / 7, 0, 3 / 7, 0])
    assert shares(temperature=0.5) == near([0.0025 / 0.285, 0.16 / 0.285, 0.01 / 0.285, 0.09 / 0.285, 0.0225 / 0.285])
    assert shares(min_p=0.3) == near([0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85])
    assert shares(min_p=0.3, top_p=0.69) == near([0, 4 / 7, 0, 3 / 7, 0])
    assert shares(min_p=1.0, temperature=2.0) == [0, 1, 0, 0, 0]
    assert shares(temperature=0.0) == [0, 1, 0, 0, 0]


@torch.no_grad()
def test_the_teacher_draws_nothing() -> None:
    model, batch = make_model(), make_texts()
    cut = spans.cut(batch, 5, SPAN)
    with patch.object(noise, "uniform_at", side_effect=AssertionError("drawn")):
        first, second = (fast(model, batch, cut, gold=False) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.look.z, other.look.z)
        assert torch.equal(one.gate_logits, other.gate_logits)


@torch.no_grad()
def test_the_teacher_is_of_its_own_weights() -> None:
    """Ema: what is held against is the teacher's z at the teacher's own stop; same: the model's own calm path."""
    model, tutor, batch, plan = make_model(), make_model(), make_texts(), span_plan()
    torch.nn.init.normal_(tutor.encoder.norm.weight)
    own, other = rollout(model, batch, plan), rollout(model, batch, plan, tutor)
    assert own.z_teacher is not None
    assert other.z_teacher is not None
    assert torch.equal(own.z, other.z)
    assert not torch.allclose(own.z_teacher, other.z_teacher, atol=0.1)
    model.load_state_dict(tutor.state_dict())
    again = rollout(model, batch, plan)
    assert again.z_teacher is not None
    torch.testing.assert_close(again.z_teacher, other.z_teacher)


@torch.no_grad()
def test_eos_stands_behind_the_end() -> None:
    batch, plan = make_texts(), span_plan()
    target = rollout(make_model(), batch, plan).target
    cut = spans.cut(batch, plan.step, SPAN)
    place = cut.prompt_length[:, None] + torch.arange(SPAN)
    assert (target[place >= batch.length[:, None] - 1] == EOS_ID).all()
    assert (place >= batch.length[:, None]).any()
    assert not (target == PAD_ID).any()


def test_the_spans_of_a_step_are_equally_long_everywhere() -> None:
    """K is of the step, not of the rank; both lengths come up."""
    plans = [span_plan(step=step, lengths=[2, 5]) for step in range(10)]
    assert {span_length(plan.step, plan.stage.span.lengths) for plan in plans} == {2, 5}
    assert rollout(make_model(), make_texts(), plans[0]).target.shape == (6, span_length(0, [2, 5]))


def test_parts_of_the_small_model() -> None:
    """The seed's list of layers of the GateNet; a table that makes no logits has no bias."""
    model = make_model(shared_projection=False)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "table", "projection", "decoder", "encoder", "gate"
    }  # fmt: skip
    assert model.table.output_bias is None
    assert PARTS.span is not None
    shapes = {name: tuple(p.shape) for name, p in model.gate.named_parameters() if name.endswith("weight")}
    width = PARTS.span.gate_hidden
    assert shapes == {
        "first.weight": (width, 1), "first_norm.weight": (width,), "second.weight": (width, width),
        "second_norm.weight": (width,), "last.weight": (2, width),
    }  # fmt: skip


@torch.no_grad()
def test_the_encoder_sees_differences_of_positions_only() -> None:
    """So an offset common to z and the decoder's states (seed, section 7) changes nothing; other distances do."""
    model = make_model()
    z, h = torch.randn(2, 1, SPAN, PARTS.hidden, generator=torch.Generator().manual_seed(2))
    place = torch.arange(SPAN).float()[None]
    refined = model.encoder(z, h, place)
    assert (model.encoder(z, h, place + 9) - refined).abs().max() < 1e-5
    assert (model.encoder(z, h, place * 3) - refined).abs().max() > 1e-3


def test_a_span_that_is_written_early_takes_no_further_step() -> None:
    """Six places, two a step: the fourth of g_max = 4 steps has nothing to write, and no gate can ask for it."""
    model = make_model()
    with torch.no_grad():
        model.gate.last.weight.zero_()
        model.gate.last.bias.copy_(torch.tensor([-9.0, 9.0]))
    out = rollout(model, make_texts(), span_plan(gate_estimator="expected"))
    assert out.stop.tolist() == [2] * 6
    assert spans.expected_steps(spans.stop_weights(out.go_on)).max() <= 3
