"""From the filler's logits to the tokens of the next draft, with a gradient into the next round (method.md §1)."""

# B batch, T tokens, M slots, N top tokens of a slot

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.tokenizer import SPECIAL_IDS
from dualmask.families.edit import stopping
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import SoftTokens
from dualmask.families.edit.picker import COLDEST
from dualmask.nn.parallel.vocabulary import top_logits
from dualmask.nn.token_losses import ScoredSlots, slots
from dualmask.ops.gaps import Masked

SUREST = 1 - 1e-6  # of a token drawn: 1 stands for a token that was given


@dataclass(frozen=True)
class Drawn:
    tokens: Tensor  # [B, T] the masked draft with every [MASK] filled
    prob: Tensor  # [B, T] probability of each token drawn, whatever the temperature; 0 elsewhere
    confidence: Tensor  # [B] its mean over what was filled
    log_prob: Tensor  # [B] of drawing all of them
    soft: SoftTokens | None


def draw_tokens(
    model: DualMask, masked: Masked, filler: ScoredSlots, key: Tensor, plan: EditPlan, counter: int, masks: int
) -> Drawn:
    """Fills all ``masks`` [MASK]s, each from the ``top_k`` most likely tokens.

    The Gumbel noise of a draw belongs to (sequence, position, token), so that no order of equal logits changes it.
    """
    rollout = plan.stage.rollout
    rows, width = masked.tokens.shape
    slot, logits = filler.slot, filler.logits
    if len(slot) > masks:  # the others are only scored
        to_fill = slots(masked.is_mask.flatten()[slot], masks)
        slot, logits = slot[to_fill], logits.index_select(0, to_fill)
    value, token = top_logits(logits, rollout.top_k, range(len(SPECIAL_IDS), model.vocab_size))
    score, temperature = value, max(plan.fill_temperature, COLDEST)
    if plan.fill_temperature > 0:
        position_key = noise.mix(key[slot // width] + slot % width)
        gumbel = noise.gumbel_at(position_key, "fill", counter, token)
        score = value / plan.fill_temperature + gumbel
    choice = score.detach().argmax(-1, keepdim=True)
    drawn = token.gather(-1, choice).squeeze(-1)
    drawn_prob = value.detach().softmax(-1).gather(-1, choice).squeeze(-1).clamp_max(SUREST)
    log_prob = (value / temperature).log_softmax(-1).gather(-1, choice).squeeze(-1)  # of the draw, at its temperature
    soft = None
    if rollout.cross_round_gradient and rollout.token_estimator in ("gumbel", "straight_through"):
        relaxed = score if rollout.token_estimator == "gumbel" else value
        soft = SoftTokens(slot, token, relaxed.softmax(-1))
    prob = torch.zeros(rows * width, device=key.device).index_copy(0, slot, drawn_prob).view(rows, width)
    total = torch.zeros(rows, device=key.device).index_add(0, slot // width, log_prob)
    tokens = masked.tokens.flatten().index_copy(0, slot, drawn).view(rows, width)
    return Drawn(tokens, prob, stopping.fill_confidence(prob, masked.is_mask), total, soft)
