"""What ``ops.mistakes`` writes wrong texts with: tables of misspelt and of confused pieces, and errors of words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dualmask.core.confusions import Confusions, confusion_table
from dualmask.core.natural.texts import NaturalTexts
from dualmask.core.tokenizer import Tokenizer
from dualmask.core.typos import typo_table

_typos = lru_cache(maxsize=1)(typo_table)  # seconds for a large vocabulary, and the same in every stage
_confusions = lru_cache(maxsize=1)(confusion_table)
_natural = lru_cache(maxsize=1)(NaturalTexts)


@dataclass(frozen=True)
class ErrorTables:
    """What a kind of corruption has no table for is written otherwise, see ``ops.corruption.corrupt``."""

    typos: Tensor | None = None  # [V, N, P] ids, see core.typos
    confusions: Confusions | None = None
    natural: NaturalTexts | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, kinds: Collection[str]) -> ErrorTables:
        """What the ``kinds`` of corruption (``CorruptionConfig.needs``) are written with. Raises ValueError where a
        package is missing."""
        return cls(
            _typos(tokenizer) if "typo" in kinds else None,
            _confusions(tokenizer) if "confuse" in kinds else None,
            _natural(tokenizer) if "natural" in kinds else None,
        )

    def to(self, device: torch.device) -> ErrorTables:
        """These tables on ``device``; the same tensors where they are there already."""
        return ErrorTables(
            None if self.typos is None else self.typos.to(device),
            None if self.confusions is None else self.confusions.to(device),
            self.natural,
        )
