"""An outside language model says how likely texts are. It must be none of those that wrote them."""

# N texts

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualmask.core.lexicon import character_starts, read_lexicon
from dualmask.core.tokenizer import Tokenizer
from dualmask.evaluation.likelihood import Passage, Scorer
from dualmask.evaluation.writers import Texts


class Judge:
    """Scores what was written behind prompts, tokenised as a reader would find it: by the text, not by how it came."""

    def __init__(self, model: Any, tokenizer: Tokenizer, max_length: int) -> None:
        """Raises ValueError for a model that has no exact likelihood."""
        self.scorer, self.tokenizer = Scorer.of(model), tokenizer
        self.most_tokens = max_length - 2
        self.lexicon = read_lexicon(tokenizer)

    def nats(self, prompts: Texts, written: Texts) -> np.ndarray:
        """[N, 2]: −log p of each continuation given its prompt, and the number of its tokens."""
        passages = [self._read(*pair) for pair in zip(prompts, written, strict=True)]
        return self.scorer.score(passages)[:, :2]

    def _read(self, prompt: Sequence[int], written: Sequence[int]) -> Passage:
        """The whole text's ids; judged from the first one on that is not wholly prompt."""
        ids = self.tokenizer.encode(self.tokenizer.decode([*prompt, *written]))[: self.most_tokens]
        ends = character_starts(ids, self.lexicon)[1:]
        return Passage(ids, int((ends <= len(self.tokenizer.decode(prompt))).sum()))
