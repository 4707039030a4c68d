"""An outside language model says how likely texts are. It must be none of those that wrote them."""

# N texts, T tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.lexicon import character_starts, read_lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from dualmask.evaluation.continuation import TEXTS_AT_ONCE, parts
from dualmask.evaluation.writers import Texts


class TokenLosses(Protocol):
    """What a model must offer to be a judge."""

    def token_losses(self, batch: Batch) -> Tensor:
        """[B, T] −log p of the token behind each position, given those up to there, in nats."""
        ...


class Judge:
    """Scores what was written behind prompts, tokenised as a reader would find it: by the text, not by how it came."""

    def __init__(
        self, model: TokenLosses, tokenizer: Tokenizer, max_length: int, device: torch.device | str = "cpu"
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.most_tokens = max_length - 2
        self.lexicon = read_lexicon(tokenizer)

    def nats(self, prompts: Texts, written: Texts) -> np.ndarray:
        """[N, 2]: −log p of each continuation given its prompt, and the number of its tokens."""
        scores = []
        for part in parts(len(prompts), TEXTS_AT_ONCE):
            texts = [self._read(*pair) for pair in zip(prompts[part], written[part], strict=True)]
            scores.append(self._score([ids for ids, _ in texts], [first for _, first in texts]))
        return np.concatenate(scores)

    def _read(self, prompt: Sequence[int], written: Sequence[int]) -> tuple[list[int], int]:
        """The whole text's ids, and the position of the first one that is not wholly prompt."""
        ids = self.tokenizer.encode(self.tokenizer.decode([*prompt, *written]))[: self.most_tokens]
        ends = character_starts(ids, self.lexicon)[1:]
        return ids, int((ends <= len(self.tokenizer.decode(prompt))).sum())

    @torch.inference_mode()
    def _score(self, texts: Texts, first: Sequence[int]) -> np.ndarray:
        width = max(map(len, texts)) + 2
        tokens = [[BOS_ID, *ids, EOS_ID] + [PAD_ID] * (width - 2 - len(ids)) for ids in texts]
        length = torch.tensor([len(ids) + 2 for ids in texts], device=self.device)
        batch = Batch(torch.tensor(tokens, device=self.device), length, key=torch.zeros_like(length))
        losses = self.model.token_losses(batch)
        # at position t stands the loss of token t of the text (BOS is in front of it); EOS, the last, is not judged
        position = torch.arange(width, device=self.device)
        judged = (position >= torch.tensor(first, device=self.device)[:, None]) & (position < length[:, None] - 2)
        return torch.stack([(losses * judged).sum(1).double(), judged.sum(1).double()], 1).cpu().numpy()
