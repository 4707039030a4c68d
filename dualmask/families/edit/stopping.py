"""When a text is finished before its last round. One rule for training and inference: per sample, batched, pure."""

# B batch, T tokens, R rounds so far

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from dualmask.core.batch import present
from dualmask.families.edit.config import StopConfig

_BASE = 0x5851F42D4C957F2D  # odd, so that none of its powers vanishes in 64 bits


class Reason(IntEnum):
    """Why a text's rounds ended, in the order in which the criteria are checked."""

    NONE = 0  # no criterion holds: only the number of rounds ends it
    NOTHING_TO_DO = 1  # the round deleted and inserted nothing
    SEEN_BEFORE = 2  # the draft was there before: what follows would repeat itself
    CONFIDENT = 3  # the tokens of the last fill are probable enough
    SETTLED = 4  # the round changed hardly anything

    @property
    def word(self) -> str:
        """As traces and metrics name it."""
        return "rounds" if self is Reason.NONE else self.name.lower()


def draft_digest(tokens: Tensor, length: Tensor) -> Tensor:
    """[B] int64 digest of the drafts [B, T]: depends on every token and its position, not on the padding."""
    power = torch.full(tokens.shape[1:], _BASE, device=tokens.device).cumprod(0)  # wraps: arithmetic modulo 2^64
    return ((tokens + 1) * power * present(length, tokens.shape[1])).sum(1)


def fill_confidence(confidence: Tensor, slots: Tensor) -> Tensor:
    """[B] mean of ``confidence`` [B, T] over the filled ``slots`` [B, T] bool; 0 where nothing was filled.

    0, because a round that only deletes says nothing of how probable the writing is: it must not end a text for that.
    """
    return (confidence * slots).sum(1) / slots.sum(1).clamp_min(1)


def reasons(
    stop: StopConfig, *, changed: Tensor, digest: Tensor, seen: Tensor, confidence: Tensor, distance: Tensor
) -> Tensor:
    """[B] int64 ``Reason``: the first criterion that holds after a round.

    changed     [B] bool: the round deleted or inserted something, or its decisions were forced and say nothing
    digest      [B] ``draft_digest`` of the draft after the round; ``seen`` [B, R]: of all drafts before it
    confidence  [B] ``fill_confidence`` of the round
    distance    [B] edit distance between the drafts before and after the round, over the longer one's length
    """
    never = torch.zeros_like(changed)
    holds = {
        Reason.NOTHING_TO_DO: ~changed,
        Reason.SEEN_BEFORE: (seen == digest[:, None]).any(1),
        Reason.CONFIDENT: never if stop.confidence is None else confidence >= stop.confidence,
        Reason.SETTLED: never if stop.edit_distance is None else distance < stop.edit_distance,
    }
    reason = torch.full_like(digest, Reason.NONE)
    for name, held in reversed(holds.items()):  # the first written is the last to have its say
        reason = torch.where(held, int(name), reason)
    return reason
