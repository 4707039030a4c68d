"""Continuing texts with an autoregressive model: one token a pass, keys and values of what was read kept."""

# N texts, L tokens of the longest prompt, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, SPECIAL_IDS
from dualmask.nn.cache import KVCache
from dualmask.nn.parallel.vocabulary import TokenTable, whole_vocabulary
from dualmask.ops.sampling import SamplingBatch, choose


class NextToken(Protocol):
    """What a model must offer, as the autoregressive baseline does, and SpanFusionLM with its decoder."""

    vocab_size: int
    table: TokenTable

    @property
    def depth(self) -> int: ...

    def next_logits(
        self, tokens: Tensor, position: Tensor, present: Tensor, cache: KVCache | None = None
    ) -> Tensor: ...


@torch.inference_mode()
def write(
    model: NextToken,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    least: int = 0,
    sampling: Sequence[SamplingParams],
    cached: bool = True,
) -> list[list[int]]:
    """What follows each prompt (ids without BOS): at most ``tokens`` ids, fewer where the model ends the text, which it
    may not do before ``least`` ids. ``sampling``: one a prompt. A text depends on its prompt and its parameters, not on
    the other texts.

    ``cached`` False: the whole text is read again for each token; slower, and the same.
    """
    device = model.table.weight.device
    read, present = left_padded(prompts, device)
    params = SamplingBatch.of(sampling, device)
    cache = KVCache(model.depth, read.shape[1] + tokens) if cached else None
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    written: list[list[int]] = []
    new = slice(None)  # what the cache has not seen
    while len(written) < tokens and not ended.all():
        position = (present.long().cumsum(1) - 1).clamp_min(0).float()
        logits = model.next_logits(read[:, new], position[:, new], present[:, new], cache)
        allowed = ordinary(model.vocab_size, device, end=len(written) >= least)[None]
        uniform = noise.uniform(params.seed, "write", len(written))
        token, _ = choose(whole_vocabulary(logits, model.vocab_size), allowed, uniform, params)
        token = torch.where(ended, EOS_ID, token)
        ended = token == EOS_ID
        written.append(token.tolist())
        read = torch.cat([read, token[:, None]], 1)
        present = torch.cat([present, torch.ones_like(ended)[:, None]], 1)
        new = slice(-1, None) if cached else new
    return [until_end(list(row)) for row in zip(*written, strict=True)] if written else [[] for _ in prompts]


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens [N, L] with BOS, padding in front, and presence [N, L]: so that all texts grow at the same column."""
    width = max(len(prompt) for prompt in prompts) + 1
    rows = [[PAD_ID] * (width - 1 - len(prompt)) + [BOS_ID, *prompt] for prompt in prompts]
    tokens = torch.tensor(rows, device=device)
    return tokens, tokens != PAD_ID


def ordinary(vocab_size: int, device: torch.device, *, end: bool) -> Tensor:
    """[V] bool: every ordinary token; EOS where the text may ``end``."""
    allowed = torch.ones(vocab_size, dtype=torch.bool, device=device)
    allowed[list(SPECIAL_IDS)] = False
    allowed[EOS_ID] = end
    return allowed


def until_end(ids: list[int]) -> list[int]:
    """What stands in front of the first EOS."""
    return ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids
