"""Two language models to compare DualMask with, made of the same trunk and token table: autoregressive and diffusion.

A batch in, every scored slot with its loss out, as the filler gives it; ``task.py`` sums them.
"""

# B batch, T tokens, S tokens so far, D width, M slots

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualmask.core import noise
from dualmask.core.batch import Batch, Counts, present
from dualmask.core.tokenizer import MASK_ID
from dualmask.curriculum import StepPlan
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.nn.cache import KVCache
from dualmask.nn.parallel.vocabulary import TokenTable
from dualmask.nn.token_losses import ScoredSlots, next_tokens, scored
from dualmask.nn.trunk import Trunk
from dualmask.ops import deletion
from dualmask.ops.gaps import contiguous_positions


class LanguageModel(nn.Module):
    """One trunk between a token table and its own logits. ``given``: tokens of a sequence that it never predicts."""

    causal: bool
    given: int

    def __init__(self, config: LanguageModelConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.table = TokenTable(vocab_size, config.hidden, std=config.init_std)
        self.lm = Trunk(config, config.layers, causal=self.causal, activation_checkpointing=activation_checkpointing)

    def logits(self, states: Tensor, slot: Tensor) -> Tensor:
        """[M, V / tensor] at the slots [M] of the flattened states [B, T, D]."""
        return self.table(states.flatten(0, 1).index_select(0, slot), logits=True)


class Autoregressive(LanguageModel):
    """Predicts each token from those in front of it, EOS included."""

    causal = True
    given = 1

    @property
    def depth(self) -> int:
        """Blocks that a ``KVCache`` must serve."""
        return len(self.lm.blocks)

    def forward(self, batch: Batch, plan: StepPlan | None = None) -> ScoredSlots:
        """Every next token of the batch. There is nothing to draw, so no plan is needed."""
        position = contiguous_positions(batch.tokens)
        states = self.lm(self.table(batch.tokens), position, batch.present, lengths=batch.lengths)
        return next_tokens(batch, states, self.logits)

    def next_logits(self, tokens: Tensor, position: Tensor, present: Tensor, cache: KVCache | None = None) -> Tensor:
        """[B, V / tensor] for the token behind the last one of each row: rows are padded on the *left*.

        ``cache``: tokens, positions and presence [B, T] are those of the new tokens only.
        """
        states = self.lm(self.table(tokens), position, present, cache)
        return self.table(states[:, -1], logits=True)


class MaskedDiffusion(LanguageModel):
    """Predicts masked tokens from all others (absorbing diffusion: LLaDA, Nie et al. 2025; MDLM, Sahoo et al. 2024)."""

    causal = False
    given = 2

    def forward(self, batch: Batch, plan: StepPlan) -> ScoredSlots:
        return self.bound(batch, plan.step)

    def bound(self, batch: Batch, turn: int) -> ScoredSlots:
        """A uniformly drawn share of each text is masked; its tokens weigh 1 / share, which bounds the text's −log p.

        The share is a whole number of tokens, so that the weights of a text always sum to its length. ``turn``: number
        of the draw.
        """
        where = batch.deletable
        size = where.sum(1)
        number = torch.ceil(noise.uniform(batch.key, "mask share", turn) * size).long()
        order = noise.uniform(batch.key, "mask order", turn, batch.tokens.shape[1])
        masked = deletion.best_first(order, where, number)
        slot = masked.flatten().nonzero().squeeze(1)
        weight = (size / number.clamp_min(1))[slot // batch.tokens.shape[1]]
        logits = self.fill(torch.where(masked, MASK_ID, batch.tokens), batch.length, slot, batch.lengths)
        return scored(logits, slot, weight, batch.tokens.flatten()[slot])

    def fill(self, tokens: Tensor, length: Tensor, slot: Tensor, lengths: Counts | None = None) -> Tensor:
        """[M, V / tensor] logits at the slots [M] (flattened places) of tokens [B, T] that hold [MASK]s.

        lengths [B]: ``length``, where the host knows it.
        """
        there = present(length, tokens.shape[1])
        states = self.lm(self.table(tokens), contiguous_positions(tokens), there, lengths=lengths)
        return self.logits(states, slot)
