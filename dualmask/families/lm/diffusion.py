"""Continuing texts with a masked-diffusion model: what is to be written begins as [MASK]s, a share falls a pass."""

# N texts, L tokens, M slots, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.sampling import SamplingParams
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.families.lm.model import MaskedDiffusion
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.ops.sampling import SamplingBatch, choose, least_confident

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
    sampling: Sequence[SamplingParams],
) -> list[list[int]]:
    """``tokens`` ids that follow each prompt (ids without BOS), in ``steps`` passes that decide equally many each.

    allowed [V] bool: what may be written. order: ``random``, the reverse of how the masks came (ancestral sampling), or
    ``confidence``, the most confident first (LLaDA's low-confidence remasking). sampling: one a prompt. A text depends
    on its prompt and its parameters, not on the other texts.
    """
    device = model.table.weight.device
    draft, length, open_slots = _drafts(prompts, tokens, device)
    params = SamplingBatch.of(sampling, device)
    rank = noise.uniform(params.seed, "order", 0, draft.shape[1])
    for step in range(min(steps, tokens)):
        token, confidence = _guess(model, draft, length, open_slots, params, step, allowed)
        rest = tokens * (min(steps, tokens) - step - 1) // min(steps, tokens)
        score = confidence if order == "confidence" else rank
        still_open = least_confident(score, open_slots, torch.full_like(length, rest))
        draft = torch.where(open_slots & ~still_open, token, draft)
        open_slots = still_open
    return [row[len(prompt) + 1 :][:tokens] for row, prompt in zip(draft.tolist(), prompts, strict=True)]


def _guess(
    model: MaskedDiffusion,
    draft: Tensor,
    length: Tensor,
    open_slots: Tensor,
    params: SamplingBatch,
    step: int,
    allowed: Tensor,
) -> tuple[Tensor, Tensor]:
    """A token for every open slot and the model's probability of it: [N, L] each."""
    slot = open_slots.flatten().nonzero().squeeze(1)
    logits = whole_vocabulary(model.fill(draft, length, slot), model.vocab_size)
    uniform = noise.uniform(params.seed, "write", step, draft.shape[1]).flatten()[slot]
    token, prob = choose(logits, allowed[None], uniform, params.rows(slot // draft.shape[1]))
    confidence = uniform.new_ones(draft.numel()).scatter(0, slot, prob)
    return draft.flatten().scatter(0, slot, token).view_as(draft), confidence.view(draft.shape)


def _drafts(prompts: Sequence[Sequence[int]], tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """BOS, prompt, [MASK]s and EOS, padded on the right; lengths; where the masks are."""
    width = max(len(prompt) for prompt in prompts) + tokens + 2
    rows = [[BOS_ID, *prompt, *[MASK_ID] * tokens, EOS_ID] for prompt in prompts]
    length = torch.tensor([len(row) for row in rows], device=device)
    draft = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows], device=device)
    return draft, length, draft == MASK_ID
