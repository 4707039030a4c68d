"""Continuing texts with SpanFusionLM: a span at a time, each in as many refinement steps as its gate asks for.

Rows are padded on the left, so that all texts grow at the same column. The decoder reads what stands in front of a span
once, together with the span's first step: keys and values of it serve all other steps and all later spans (R12).
"""

# N texts still written, L columns so far, K positions of the span, M positions written now, V vocabulary, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import EOS_ID
from dualmask.families.span import spans
from dualmask.families.span.gate_net import CONTINUE
from dualmask.families.span.model import Look, SpanFusion, SpanState
from dualmask.families.span.request import VERIFIED, Gate, check_length, most_steps
from dualmask.inference.autoregressive import left_padded, ordinary, until_end
from dualmask.nn.cache import KVCache
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.ops.sampling import SamplingBatch, choose


@dataclass(frozen=True)
class SpanTrace:
    """How a span was written. ``steps`` is below the gate's number where nothing was left to write."""

    position: int  # of its first token behind the prompt
    entropy: tuple[float, ...]  # nats: what the gate read at each step
    steps: int
    order: tuple[int, ...]  # the step, from 0, in which each position was written
    confidence: tuple[float, ...]  # the model's probability of each token when it was written


@dataclass(frozen=True)
class Written:
    ids: list[int]  # what follows the prompt, without EOS and what stands behind it
    spans: tuple[SpanTrace, ...]


@torch.inference_mode()
def write(
    model: SpanFusion,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    span: int,
    gate: Gate = "learned",
    least: int = 0,
    sampling: Sequence[SamplingParams],
    allowed: Tensor | None = None,
    cached: bool = True,
) -> list[Written]:
    """What follows each prompt (ids without BOS): at most ``tokens`` ids, ``span`` = K at a time, fewer where the model
    ends the text, which it may not do before ``least`` ids. ``sampling``: one a prompt. A text depends on its own
    prompt and parameters only.

    gate: ``learned``, ``fast`` (one step a span), ``accurate`` (all steps), or so many steps. allowed [V] bool: what
    may be written, with EOS where texts may end; special ids never are. ``cached`` False: the whole text is read again
    in each step (seed 004, §7); slower, and the same. Raises ValueError for what cannot be done.
    """
    if gate == VERIFIED:
        raise ValueError("gate verified: call verified.write")
    if span < 1:
        raise ValueError(f"span {span} is not possible: give 1 or more tokens")
    check_length(max(map(len, prompts), default=0), tokens, model.config.max_length)
    device = model.table.weight.device
    writable = writable_ids(model.vocab_size, device, allowed)
    rules = _Rules(most_steps(gate, model.span.g_max), writable, least)
    if not prompts:
        return []
    tokens_so_far, present = left_padded(prompts, device)
    cache = KVCache(model.depth, present.shape[1] + tokens) if cached else None
    texts = _Texts(model, SamplingBatch.of(sampling, device), tokens_so_far, present, cache)
    ids: list[list[int]] = [[] for _ in prompts]
    traces: list[list[SpanTrace]] = [[] for _ in prompts]
    alive, start = torch.arange(len(prompts), device=device), 0
    while start < tokens and len(alive):
        record = _write_span(texts, start, min(span, tokens - start), rules)
        for row, text in enumerate(alive.tolist()):
            ids[text] += record.tokens[row].tolist()
            traces[text].append(record.trace(row, start))
        going = (record.tokens != EOS_ID).all(1).nonzero().squeeze(1)
        texts, alive = texts.followed_by(record.tokens).rows(going), alive[going]
        start += record.tokens.shape[1]
    return [Written(until_end(row), tuple(trace)) for row, trace in zip(ids, traces, strict=True)]


def writable_ids(vocab_size: int, device: torch.device, allowed: Tensor | None) -> Tensor:
    """[V] bool: what may be written. Raises ValueError."""
    ids = ordinary(vocab_size, device, end=True)
    ids = ids if allowed is None else ids & allowed.to(device)
    if not ids[EOS_ID + 1 :].any():
        raise ValueError("allowed: no ordinary token may be written; allow some")
    return ids


@dataclass(frozen=True)
class _Rules:
    """What holds for all texts of a call."""

    most: int | None  # steps a span; None: the GateNet decides
    writable: Tensor  # [V] bool
    least: int  # tokens behind the prompt before which EOS may not be written

    def goes_on(self, model: SpanFusion, look: Look, step: int) -> Tensor:
        """[N] bool: the gate wants a step behind this one."""
        if self.most is None:
            return model.gate(look.mean_entropy).argmax(-1) == CONTINUE
        return torch.full_like(look.mean_entropy, step + 1 < self.most, dtype=torch.bool)

    def choose(
        self, logits: Tensor, sampling: SamplingBatch, position: Tensor, behind: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ids and their probabilities [M] from logits [M, V]. sampling: of the M slots; position [M]: in the whole
        text; behind [M]: tokens between the prompt and the slot."""
        uniform = noise.uniform_at(sampling.seed, "span", 0, position[:, None].long()).squeeze(1)
        allowed = self.writable.repeat(len(logits), 1)
        allowed[:, EOS_ID] &= behind >= self.least
        return choose(logits, allowed, uniform, sampling)


@dataclass
class _Texts:
    """Texts so far, and what the decoder remembers of their first ``known`` columns."""

    model: SpanFusion
    sampling: SamplingBatch  # [N]
    tokens: Tensor  # [N, L]
    present: Tensor  # [N, L] bool
    cache: KVCache | None
    known: int = 0

    def rows(self, index: Tensor) -> _Texts:
        if len(index) == len(self.tokens):
            return self
        return replace(
            self,
            sampling=self.sampling.rows(index),
            tokens=self.tokens[index],
            present=self.present[index],
            cache=self.cache and self.cache.rows(index),
        )

    def followed_by(self, span: Tensor) -> _Texts:
        """With ``span`` [N, K] at the end of each."""
        there = torch.ones_like(span, dtype=torch.bool)
        return replace(self, tokens=torch.cat([self.tokens, span], 1), present=torch.cat([self.present, there], 1))

    def look(self, state: SpanState, position: Tensor) -> Look:
        """One step of the span behind the texts. What the decoder reads of these on the way is remembered."""
        whole, width = self.followed_by(state.tokens), state.tokens.shape[1]
        new = slice(self.known, None)
        column_position = (whole.present.cumsum(1) - 1).clamp_min(0).float()
        embedded = self.model.table(whole.tokens[:, new])
        states = self.model.decoder(embedded, column_position[:, new], whole.present[:, new], self.cache)
        if self.cache is not None:
            self.cache.crop(width)
            self.known = self.tokens.shape[1]
        return self.model.refine(state, states[:, -width:], position)


@dataclass
class _Record:
    """What happened to a span of each text."""

    tokens: Tensor  # [N, K]
    order: Tensor  # [N, K]
    confidence: Tensor  # [N, K]
    entropy: list[list[float]] = field(default_factory=list)  # of each text, a number a step

    @classmethod
    def of_open(cls, tokens: Tensor) -> _Record:
        confidence = torch.zeros(tokens.shape, device=tokens.device)
        return cls(tokens.clone(), torch.zeros_like(tokens), confidence, [[] for _ in tokens])

    def trace(self, row: int, position: int) -> SpanTrace:
        entropy = tuple(self.entropy[row])
        order, confidence = tuple(self.order[row].tolist()), tuple(self.confidence[row].tolist())
        return SpanTrace(position, entropy, len(entropy), order, confidence)


def _write_span(texts: _Texts, start: int, width: int, rules: _Rules) -> _Record:
    """All steps of the span of ``width`` = K positions, ``start`` tokens behind the prompts. A text whose gate stops
    gets its open positions from that step's states (R8), and costs nothing in the steps of the others."""
    model = texts.model
    state = model.begin(len(texts.tokens), width)
    record = _Record.of_open(state.tokens)
    number = spans.places_a_step(width, model.span.g_max)
    rows = torch.arange(len(texts.tokens), device=state.tokens.device)
    for step in range(model.span.g_max):
        position = spans.positions(texts.present.sum(1), width)
        look = texts.look(state, position)
        going = rules.goes_on(model, look, step) & (state.open.sum(1) > number)
        pick = model.next_places(look, state, torch.where(going, number, width))
        row, column = pick.nonzero().unbind(1)
        logits = whole_vocabulary(look.logits.view(*pick.shape, -1)[row, column], model.vocab_size)
        token, confidence = rules.choose(logits, texts.sampling.rows(row), position[row, column], start + column)
        slot = rows[row], column
        record.tokens[slot], record.confidence[slot], record.order[slot] = token, confidence, step
        for text, nats in zip(rows.tolist(), look.mean_entropy.tolist(), strict=True):
            record.entropy[text].append(nats)
        rest = going.nonzero().squeeze(1)
        if not len(rest):
            break
        texts, rows = texts.rows(rest), rows[rest]
        state = SpanState(record.tokens[rows], (state.open & ~pick)[rest], look.z[rest])
    return record
