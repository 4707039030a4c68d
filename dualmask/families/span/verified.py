"""Verified spans: the very text that the decoder writes token by token, in fewer passes (speculative decoding,
Leviathan et al. 2023; drafts from the pass that verifies, as in Stern et al. 2018 and Cai et al. 2024).

A pass of the decoder reads a chain, the last certain token and the draft behind it, and K [PRED]s behind each token of
the chain. What the decoder says behind a token of the chain decides the next one: as far as the draft is the same it is
accepted, and the first decision that differs is certain, too. The [PRED]s behind the last accepted token and the
encoder give the next draft. Draws come from the noise of ``inference.autoregressive.write``, so that texts are the same
as its texts at any temperature.
"""

# N texts still written, K tokens of a span, L columns of the prompts, V vocabulary, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import EOS_ID, PRED_ID
from dualmask.families.span.generate import SpanTrace, Written, writable_ids
from dualmask.families.span.model import SpanFusion
from dualmask.families.span.spans import positions
from dualmask.inference.autoregressive import left_padded, until_end
from dualmask.nn import branches
from dualmask.nn.branches import Branches
from dualmask.nn.cache import KVCache
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.nn.trunk import DepthwiseConv
from dualmask.ops.sampling import SamplingBatch, choose

STREAM = "write"  # of the noise of the autoregressive writer


@torch.inference_mode()
def write(
    model: SpanFusion,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    span: int,
    least: int = 0,
    sampling: Sequence[SamplingParams],
    allowed: Tensor | None = None,
) -> list[Written]:
    """What follows each prompt, with the parameters of ``generate.write``. One trace a pass of the decoder."""
    if not prompts or tokens < 1:
        return [Written([], ()) for _ in prompts]
    device, span = model.table.weight.device, min(span, tokens)
    rules = _Rules(writable_ids(model.vocab_size, device, allowed), least)
    texts, done = _Texts.begun(model, prompts, SamplingBatch.of(sampling, device), rules, span, tokens)
    ids: list[list[int]] = [[] for _ in prompts]
    traces: list[list[SpanTrace]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    while True:
        going = []
        for row, text in enumerate(alive):
            new, confidence, nats = done.of(row)
            room = tokens - len(ids[text])
            traces[text].append(SpanTrace(len(ids[text]), (nats,), 1, (0,) * min(len(new), room), confidence[:room]))
            ids[text] += new[:room]
            if EOS_ID not in ids[text] and len(ids[text]) < tokens:
                going.append(row)
        if not going:
            return [Written(until_end(row), tuple(trace)) for row, trace in zip(ids, traces, strict=True)]
        alive = [alive[row] for row in going]
        texts, done = texts.rows(torch.tensor(going, device=device)).passed(rules)


@dataclass(frozen=True)
class _Rules:
    writable: Tensor  # [V] bool
    least: int  # tokens behind the prompt before which EOS may not be written

    def choose(self, logits: Tensor, sampling: SamplingBatch, number: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and their probabilities [N, K] from logits [N·K, V]. number [N, K]: of each token behind the prompt."""
        rows = torch.arange(len(number), device=number.device).repeat_interleave(number.shape[1])
        slots = sampling.rows(rows)
        allowed = self.writable.repeat(len(logits), 1)
        allowed[:, EOS_ID] &= number.flatten() >= self.least
        uniform = noise.uniform_in_steps(slots.seed, STREAM, number.flatten())
        token, confidence = choose(logits, allowed, uniform, slots)
        return token.view_as(number), confidence.view_as(number)


@dataclass(frozen=True)
class _Done:
    """What a pass made certain."""

    tokens: Tensor  # [N, K]
    number: Tensor  # [N] how many of them
    confidence: Tensor  # [N, K]
    entropy: Tensor  # [N] nats: the decoder's mean entropy over the [PRED]s of the next draft

    def of(self, row: int) -> tuple[list[int], tuple[float, ...], float]:
        number = int(self.number[row])
        confidence = tuple(self.confidence[row, :number].tolist())
        return self.tokens[row, :number].tolist(), confidence, float(self.entropy[row])


@dataclass
class _Texts:
    """Texts with the next chain of each."""

    model: SpanFusion
    sampling: SamplingBatch  # [N]
    cache: KVCache  # all but the chains
    present: Tensor  # [N, S] bool: what of the cache there is
    chain: Tensor  # [N, K]: the last certain token, and the draft behind it
    number: Tensor  # [N] of the chain's first token behind the prompt

    @classmethod
    def begun(
        cls,
        model: SpanFusion,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingBatch,
        rules: _Rules,
        span: int,
        tokens: int,
    ) -> tuple[_Texts, _Done]:
        """Reads the prompts with a draft behind them."""
        read, present = left_padded(prompts, model.table.weight.device)
        width = read.shape[1]
        kept = tokens if len(prompts) == 1 else tokens * span  # in a batch, columns that one text gives up stay
        cache = KVCache(model.depth, width + kept + span + span * span)
        whole = torch.cat([read, read.new_full((len(read), span), PRED_ID)], 1)
        there = torch.cat([present, torch.ones_like(whole[:, width:], dtype=torch.bool)], 1)
        position = (there.cumsum(1) - 1).clamp_min(0).float()
        states = model.decoder(model.table(whole), position, there, cache)
        cache.crop(span)
        texts = cls(model, sampling, cache, present, read[:, :0], torch.zeros_like(read[:, 0]))
        logits = whole_vocabulary(model.project(states[:, width - 1]), model.vocab_size)
        certain, confidence = rules.choose(logits, sampling, texts.number[:, None])
        entropy = texts.draft(certain, states[:, width:], rules)
        return texts, _Done(certain, torch.ones_like(texts.number), confidence, entropy)

    def draft(self, certain: Tensor, states: Tensor, rules: _Rules) -> Tensor:
        """Makes the chain from its first token [N, 1] and the decoder's states [N, K, D] at the [PRED]s that stand
        there and behind it. Returns the mean entropy [N]."""
        rows, span = states.shape[:2]
        look = self.model.refine(self.model.begin(rows, span), states, positions(self.present.sum(1), span))
        logits = whole_vocabulary(look.logits, self.model.vocab_size)
        number = self.number[:, None] + torch.arange(span, device=states.device)
        drafted, _ = rules.choose(logits, self.sampling, number)
        self.chain = torch.cat([certain, drafted[:, 1:]], 1)
        return look.mean_entropy

    def passed(self, rules: _Rules) -> tuple[_Texts, _Done]:
        """One pass of the decoder."""
        rows, span = self.chain.shape
        ahead = self.chain.new_full((rows, span * span), PRED_ID)
        layout = Branches.behind(self.present, span, span, 2 * DepthwiseConv.REACH)
        position = branches.positions(self.present.sum(1), span, span)
        tokens = torch.cat([self.chain, ahead], 1)
        there = torch.ones_like(tokens, dtype=torch.bool)
        self.cache.present.append(there[..., None])  # as ``lay_out`` does: all parts of a cache are cropped together
        states = self.model.decoder(self.model.table(tokens), position, there, self.cache, layout=layout)
        logits = whole_vocabulary(self.model.project(states[:, :span].flatten(0, 1)), self.model.vocab_size)
        number = self.number[:, None] + 1 + torch.arange(span, device=tokens.device)
        decided, confidence = rules.choose(logits, self.sampling, number)
        accepted = (decided[:, :-1] == self.chain[:, 1:]).long().cumprod(1).sum(1)
        self._keep(accepted)
        row = torch.arange(rows, device=tokens.device)
        branch = states[:, span:].view(rows, span, span, -1)[row, accepted]
        self.number = self.number + accepted + 1
        entropy = self.draft(decided[row, accepted][:, None], branch, rules)
        return self, _Done(decided, accepted + 1, confidence, entropy)

    def _keep(self, accepted: Tensor) -> None:
        """Of the last pass the first token of the chain and the accepted ones [N] behind it."""
        span = self.chain.shape[1]
        column = torch.arange(int(accepted.max()) + 1, device=accepted.device)
        self.cache.crop(span + span * span - len(column))
        self.present = torch.cat([self.present, column <= accepted[:, None]], 1)

    def rows(self, index: Tensor) -> _Texts:
        if len(index) == len(self.chain):
            return self
        planes = (self.present[index], self.chain[index], self.number[index])
        return _Texts(self.model, self.sampling.rows(index), self.cache.rows(index), *planes)
