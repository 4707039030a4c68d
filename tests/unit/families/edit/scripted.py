"""A model whose opinions a test writes down. The engine around it is the real one."""

# B batch, T tokens, G gaps = T-1, M slots

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.families.edit.config import EditConfig
from dualmask.families.edit.masked_lm import MaskedLMScores
from dualmask.families.edit.model import DraftScores
from dualmask.families.edit.outputs import InserterOut
from dualmask.families.edit.picker import DeleteLogits
from dualmask.families.edit.told import ToldGaps
from dualmask.ops.deletion import OFFSETS
from dualmask.ops.gaps import Skeleton, gap_present

SURE = 8.0  # logit


class Scripted(nn.Module):
    """
    wrong  tokens [B, T] → [B, T] probability that the token is wrong
    gate   tokens [B, T] → [B] probability that the round should edit
    count  tokens [B, T] → [B, G] masks that are missing behind each token
    write  tokens [B, T] → [B, T] token to write at each [MASK]
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        wrong: Callable[[Tensor], Tensor] = lambda tokens: torch.zeros(tokens.shape),
        gate: Callable[[Tensor], Tensor] = lambda tokens: torch.ones(len(tokens)),
        count: Callable[[Tensor], Tensor] = lambda tokens: torch.zeros_like(tokens[:, 1:]),
        write: Callable[[Tensor], Tensor] = lambda tokens: torch.full_like(tokens, 300),
        max_length: int = 32,
    ) -> None:
        super().__init__()
        self.config = EditConfig(max_length=max_length)
        self.nothing = nn.Parameter(torch.zeros(1))  # where the engine looks for the device
        self.vocab_size = vocab_size
        self.wrong, self.gate, self.counted, self.write = wrong, gate, count, write
        self.heard: list[Tensor] = []  # what was said of how surely each token was written, a forward

    def read(self, batch: Batch, keep_rate: Tensor, written_prob: Tensor) -> DraftScores:
        self.heard.append(written_prob)
        wrong = torch.logit(self.wrong(batch.tokens), eps=1e-6)
        silent = torch.zeros(batch.tokens.shape)
        beside = torch.zeros(*batch.tokens.shape, len(OFFSETS))
        return DraftScores(
            masked_lm=MaskedLMScores(silent, silent, silent),
            logits=DeleteLogits(unary=silent, pairwise=beside, wrong=wrong),
            gate_logit=torch.logit(self.gate(batch.tokens), eps=1e-6),
        )

    def count(self, skeleton: Skeleton, x_BTD: Tensor | None = None, told: ToldGaps | None = None) -> InserterOut:
        number = self.counted(skeleton.tokens)
        logits = SURE * nn.functional.one_hot(number, self.config.max_gap_count + 1).float()
        return InserterOut(logits, gap_present(skeleton.length, skeleton.tokens.shape[1]))

    def recall(self, deleted: Tensor) -> Tensor:
        return torch.zeros(*deleted.shape, 1)  # it writes without having been told

    def fill(self, tokens: Tensor, length: Tensor, slot: Tensor, replaced: Tensor | None = None) -> Tensor:
        return SURE * nn.functional.one_hot(self.write(tokens).flatten()[slot], self.vocab_size).float()
