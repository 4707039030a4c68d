"""How tokens are chosen, as one object that travels whole from the command line to the function that chooses them.

A new rule is a field of ``SamplingParams`` and a function in ``dualmask/ops/sampling.py``; the command line makes its
options from the fields. Plain data without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dualmask.core.checks import check


def _parameter(default: float, meaning: str) -> Any:
    """A field; ``meaning`` is the help of its option."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of one request, whatever the family of the model. Raises ValueError.

    temperature        of the tokens written; 0: always the most likely
    place_temperature  of what is deleted and how many masks go where; 0: always the best (DualMaskLM)
    top_p              draw from the smallest set of most likely tokens that holds this probability (nucleus sampling,
                       Holtzman et al. 2020); 1: no limit
    min_p              draw no token whose probability is below this share of the likeliest one's (min-p sampling,
                       Nguyen et al. 2024); 0: no limit
    fill_steps         in how many steps the masks of a round are filled, the most confident first (DualMaskLM)
    remask             open tokens of low confidence of earlier fill steps again (DualMaskLM)
    seed               of all draws: the same seed and parameters give the same result
    """

    temperature: float = _parameter(0.0, "Of the words written. 0: always the most likely.")
    place_temperature: float = _parameter(0.0, "Of what is deleted and where masks go. 0: always the best place.")
    top_p: float = _parameter(1.0, "Draw from the likeliest words that share this probability.")
    min_p: float = _parameter(0.0, "Draw no word less probable than this share of the likeliest one's probability.")
    fill_steps: int = _parameter(1, "Fill the masks of a round in so many steps, the surest first.")
    remask: bool = _parameter(False, "Let later fill steps take back doubtful words.")
    seed: int = _parameter(0, "The same seed and options give the same result.")

    def __post_init__(self) -> None:
        check(1 <= self.fill_steps <= 1000, "fill steps", self.fill_steps, "1 … 1000")
        check(0 <= self.temperature <= 100, "temperature", self.temperature, "0 (most likely) … 100")
        check(0 <= self.place_temperature <= 100, "place temperature", self.place_temperature, "0 (best) … 100")
        check(0 < self.top_p <= 1, "top-p", self.top_p, "above 0, at most 1 (no limit)")
        check(0 <= self.min_p <= 1, "min-p", self.min_p, "0 (no limit) … 1 (the likeliest)")
        check(0 <= self.seed < 2**63, "seed", self.seed, "0 … 2^63 - 1")

    def with_seeds(self, seeds: Iterable[int]) -> list[SamplingParams]:
        """The same parameters once for each seed."""
        return [replace(self, seed=seed) for seed in seeds]


GREEDY = SamplingParams()  # always the most likely token
