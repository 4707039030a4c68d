"""An outside language model says how likely texts are. It must be none of those that wrote them."""

# N texts, T tokens, M slots

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.lexicon import character_starts, read_lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.families.lm.model import Autoregressive
from dualmask.inference.loading import Loaded

TEXTS_AT_ONCE = 64


class Judge:
    """Scores what was written behind prompts, tokenised as a reader would find it: by the text, not by how it came."""

    def __init__(self, loaded: Loaded[Autoregressive]) -> None:
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.most = loaded.config.max_length - 2
        self.lexicon = read_lexicon(loaded.tokenizer)

    def nats(self, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]) -> np.ndarray:
        """[N, 2]: −log p of each continuation given its prompt, and the number of its tokens."""
        parts = []
        for start in range(0, len(prompts), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            rows = [self._row(*pair) for pair in zip(prompts[part], written[part], strict=True)]
            parts.append(self._score([ids for ids, _ in rows], [first for _, first in rows]))
        return np.concatenate(parts)

    def _row(self, prompt: Sequence[int], written: Sequence[int]) -> tuple[list[int], int]:
        """The whole text's ids, and the place of the first one that is not wholly prompt."""
        ids = self.tokenizer.encode(self.tokenizer.decode([*prompt, *written]))[: self.most]
        ends = character_starts(ids, self.lexicon)[1:]
        return ids, int((ends <= len(self.tokenizer.decode(prompt))).sum())

    @torch.inference_mode()
    def _score(self, rows: Sequence[Sequence[int]], first: Sequence[int]) -> np.ndarray:
        device = self.model.table.weight.device
        width = max(map(len, rows)) + 2
        tokens = [[BOS_ID, *row, EOS_ID] + [PAD_ID] * (width - 2 - len(row)) for row in rows]
        length = torch.tensor([len(row) + 2 for row in rows], device=device)
        out = self.model(Batch(torch.tensor(tokens, device=device), length, key=torch.zeros_like(length)))
        # the loss at place t is that of token t of the row (BOS stands at 0); the last one, EOS, is not judged
        loss = torch.zeros(len(rows) * width, device=device).scatter(0, out.slot, out.loss).view(len(rows), width)
        place = torch.arange(width, device=device)
        judged = (place >= torch.tensor(first, device=device)[:, None]) & (place < length[:, None] - 2)
        return _columns((loss * judged).sum(1), judged.sum(1))


def _columns(*columns: Tensor) -> np.ndarray:
    return torch.stack([column.double() for column in columns], 1).cpu().numpy()
