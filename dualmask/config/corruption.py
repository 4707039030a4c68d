"""What makes a text wrong: the keys of ``ops.corruption``. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dualmask.config.natural import NaturalErrors
from dualmask.config.section import Section, Share, Weight

KINDS = ("substitute", "drop", "double", "swap", "typo", "confuse")
NATURAL = "natural"


class CorruptionConfig(Section):
    """What makes a text wrong. Of a corrupted sequence a share of the tokens is hit, each by one of the kinds below; or
    (``natural``) a share of the words, as people do it."""

    rate_low: Share = 0.05
    rate_high: Share = 0.2
    substitute: Weight = Field(4.0, description="weight: replaced by a token of another place of the same text")
    drop: Weight = Field(1.0, description="weight: left out")
    double: Weight = Field(1.0, description="weight: written twice")
    double_most: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="tokens of the longest block that is written twice: words of several pieces are doubled whole"
    )
    swap: Weight = Field(1.0, description="weight: exchanged with the token behind it")
    typo: Weight = Field(1.0, description="weight: characters of the token substituted, dropped, doubled or swapped")
    confuse: Weight = Field(0.0, description="weight: confused as people do: its form, another of its class, left out")
    shuffle_share: Share = Field(0.1, description="share of corrupted sequences that also have one span shuffled")
    mean_span: Annotated[float, Field(ge=2.0)] = Field(4.0, description="mean length of a shuffled span, tokens")
    natural: NaturalErrors = NaturalErrors()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that occur."""
        return tuple(kind for kind in KINDS if getattr(self, kind) > 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """What is needed to write them, see ``core.errors``."""
        return (*self.kinds, *([NATURAL] if self.natural.share > 0 else []))

    @model_validator(mode="after")
    def _consistent(self) -> CorruptionConfig:
        if self.rate_low > self.rate_high:
            raise ValueError(f"rate_low={self.rate_low} exceeds rate_high={self.rate_high}")
        if not self.kinds and self.natural.share < 1:
            raise ValueError("substitute, drop, double, swap, typo and confuse are all 0: give one of them a weight")
        return self
