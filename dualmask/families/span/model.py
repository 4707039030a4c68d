"""SpanFusionLM (seed 004): a causal decoder proposes, an encoder refines a whole span, a gate says when to stop.

What one refinement step reads and says stands here; how steps follow each other in training, in ``rollout.py``.
"""

# B batch, T tokens, K places of a span, D width, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import EOS_ID, MASK_ID, PRED_ID
from dualmask.families.span import spans
from dualmask.families.span.config import SpanFusionConfig
from dualmask.families.span.encoder import SpanEncoder
from dualmask.families.span.gate_net import GateNet
from dualmask.nn.cache import KVCache, PrefixCache
from dualmask.nn.parallel.vocabulary import TokenTable, entropy, log_normaliser, top_logits
from dualmask.nn.token_losses import ScoredSlots, next_tokens
from dualmask.nn.trunk import DepthwiseConv, Trunk
from dualmask.ops.gaps import contiguous_positions

REACH = 2 * DepthwiseConv.REACH  # embeddings that a causal trunk asks back for
REFUSED = (MASK_ID, PRED_ID)  # never written


@dataclass(frozen=True)
class SpanState:
    """A span between two steps."""

    tokens: Tensor  # [B, K] ids, [PRED] where open
    open: Tensor  # [B, K] bool: not written yet
    z: Tensor  # [B, K, D] the encoder's states


@dataclass(frozen=True)
class Look:
    """What one step says before anything is written."""

    z: Tensor  # [B, K, D] refined states
    logits: Tensor  # [B·K, V / tensor] of the refined states
    pred_logits: Tensor  # [B·K, V / tensor] of the decoder's own states
    entropy: Tensor  # [B, K] nats, of ``pred_logits``
    mean_entropy: Tensor  # [B] over the open places: what the GateNet reads


class SpanFusion(nn.Module):
    def __init__(self, config: SpanFusionConfig, vocab_size: int, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.config, self.span, self.vocab_size = config, config.span, vocab_size
        shared = config.span.shared_projection
        self.table = TokenTable(vocab_size, config.hidden, std=config.init_std, bias=shared)
        self.projection = None if shared else TokenTable(vocab_size, config.hidden, std=config.init_std)
        options = {"activation_checkpointing": activation_checkpointing}
        self.decoder = Trunk(config, config.span.decoder_layers, causal=True, **options)
        self.encoder = SpanEncoder(config, config.span.encoder_layers, **options)
        self.gate = GateNet(config.span, vocab_size)

    def forward(self, batch: Batch) -> tuple[ScoredSlots, PrefixCache]:
        """The loss of every next token, and what the decoder remembers of each text."""
        prefix = PrefixCache.empty(self.depth)
        return self.next_tokens(batch, self.read(batch, prefix)), prefix.appended()

    def read(self, batch: Batch, prefix: PrefixCache | None = None) -> Tensor:
        """[B, T, D] the decoder's states of whole texts. ``prefix``: an empty one, if these are to be remembered."""
        position = contiguous_positions(batch.tokens)
        return self.decoder(self.table(batch.tokens), position, batch.present, prefix, lengths=batch.lengths)

    def decoder_losses(self, batch: Batch) -> ScoredSlots:
        """The loss of every next token by the decoder alone; keeps no prefix."""
        return self.next_tokens(batch, self.read(batch))

    def next_tokens(self, batch: Batch, states: Tensor) -> ScoredSlots:
        """The loss of every next token from the decoder's states [B, T, D]."""
        return next_tokens(batch, states, lambda h, slot: self.project(h.flatten(0, 1).index_select(0, slot)))

    def project(self, states: Tensor) -> Tensor:
        """[M, V / tensor] logits of states [M, D]."""
        return (self.projection or self.table)(states, logits=True)

    @property
    def depth(self) -> int:
        """Blocks of the decoder."""
        return len(self.decoder.blocks)

    def next_logits(self, tokens: Tensor, position: Tensor, present: Tensor, cache: KVCache | None = None) -> Tensor:
        """The decoder alone, used autoregressively: as ``language_model.Autoregressive.next_logits``."""
        states = self.decoder(self.table(tokens), position, present, cache)
        return self.project(states[:, -1])

    def begin(self, rows: int, width: int) -> SpanState:
        """Nothing is written: ``width`` = K [PRED]s, their embeddings the first states."""
        tokens = torch.full((rows, width), PRED_ID, device=self.table.weight.device)
        return SpanState(tokens, torch.ones_like(tokens, dtype=torch.bool), self.table(tokens))

    def look(self, state: SpanState, position: Tensor, prefix: PrefixCache, *, detach: bool = False) -> Look:
        """One step behind the prompts that ``prefix`` holds. position [B, K]; ``detach``: the encoder's losses end
        at the decoder's states."""
        there = torch.ones_like(state.open)
        h_BKD = self.decoder(self.table(state.tokens), position, there, prefix)
        return self.refine(state, h_BKD, position, detach=detach)

    def refine(self, state: SpanState, h_BKD: Tensor, position: Tensor, *, detach: bool = False) -> Look:
        """``look`` from the decoder's states [B, K, D] at the span."""
        pred_logits = self.project(h_BKD.flatten(0, 1))
        read_BKD = h_BKD.detach() if detach else h_BKD
        z_BKD = self.encoder(state.z + read_BKD if self.span.skip else state.z, read_BKD, position)
        nats = entropy(pred_logits).view_as(position)
        mean_entropy = spans.mean_over(nats, state.open)
        return Look(z_BKD, self.project(z_BKD.flatten(0, 1)), pred_logits, nats, mean_entropy)

    @torch.no_grad()
    def next_places(self, look: Look, state: SpanState, number: int | Tensor) -> Tensor:
        """[B, K] bool: the places to be written now, ``number`` ([B]) of those that are open."""
        score = look.entropy
        if self.span.fill_order == "confidence":
            best, _ = top_logits(look.logits, 1, range(EOS_ID, self.vocab_size), refused=REFUSED)
            score = (best.squeeze(-1) - log_normaliser(look.logits)).view_as(score)
        return spans.pick(score, state.open, number)
