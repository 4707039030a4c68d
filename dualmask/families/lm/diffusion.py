"""Continuing texts with a masked-diffusion model: what is to be written begins as [MASK]s, a share falls a pass."""

# N texts, L tokens, M slots, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from dualmask.core import noise, sampling
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.families.lm.model import MaskedDiffusion
from dualmask.nn.parallel.vocabulary import whole_vocabulary

Order = Literal["random", "confidence"]
ORDERS: tuple[Order, ...] = get_args(Order)


@torch.inference_mode()
def write(
    model: MaskedDiffusion,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    steps: int,
    allowed: Tensor,
    order: Order = "random",
    temperature: float = 1.0,
    top_p: float = 1.0,
    seeds: Sequence[int],
) -> list[list[int]]:
    """``tokens`` ids that follow each prompt (ids without BOS), in ``steps`` passes that decide equally many each.

    allowed [V] bool: what may be written. order: ``random``, the reverse of how the masks came (ancestral sampling), or
    ``confidence``, the surest first (LLaDA's low-confidence remasking). A text depends on its prompt and its seed, not
    on the other texts.
    """
    device = model.table.weight.device
    draft, length, open_slots = _drafts(prompts, tokens, device)
    key = torch.tensor(seeds, device=device)
    rank = noise.uniform(key, "order", 0, draft.shape[1])
    for step in range(min(steps, tokens)):
        token, sure = _guess(model, draft, length, open_slots, key, step, allowed, temperature, top_p)
        rest = tokens * (min(steps, tokens) - step - 1) // min(steps, tokens)
        score = sure if order == "confidence" else rank
        still_open = sampling.least_sure(score, open_slots, torch.full_like(key, rest))
        draft = torch.where(open_slots & ~still_open, token, draft)
        open_slots = still_open
    return [row[len(prompt) + 1 :][:tokens] for row, prompt in zip(draft.tolist(), prompts, strict=True)]


def _guess(
    model: MaskedDiffusion,
    draft: Tensor,
    length: Tensor,
    open_slots: Tensor,
    key: Tensor,
    step: int,
    allowed: Tensor,
    temperature: float,
    top_p: float,
) -> tuple[Tensor, Tensor]:
    """A token for every open slot and the model's probability of it: [N, L] each."""
    slot = open_slots.flatten().nonzero().squeeze(1)
    logits = whole_vocabulary(model.fill(draft, length, slot), model.vocab_size)
    uniform = noise.uniform(key, "write", step, draft.shape[1]).flatten()[slot]
    heat, nucleus = (torch.full_like(uniform, value) for value in (temperature, top_p))
    token, sure = sampling.choose(logits, allowed[None], uniform, heat, nucleus)
    confidence = uniform.new_ones(draft.numel()).scatter(0, slot, sure)
    return draft.flatten().scatter(0, slot, token).view_as(draft), confidence.view(draft.shape)


def _drafts(prompts: Sequence[Sequence[int]], tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """BOS, prompt, [MASK]s and EOS, padded on the right; lengths; where the masks are."""
    width = max(len(prompt) for prompt in prompts) + tokens + 2
    rows = [[BOS_ID, *prompt, *[MASK_ID] * tokens, EOS_ID] for prompt in prompts]
    length = torch.tensor([len(row) for row in rows], device=device)
    draft = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows], device=device)
    return draft, length, draft == MASK_ID
