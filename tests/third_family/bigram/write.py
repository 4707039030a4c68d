"""``dualmask generate`` with a bigram model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dualmask.core.sampling import SamplingParams
from dualmask.serving.options import Setup, Source
from dualmask.serving.results import show
from dualmask.serving.texts import read_texts

TOKENS = 12


@dataclass(frozen=True)
class Continued:
    output: str
    trace: dict[str, Any]


def generate(source: Source, setup: Setup, sampling: SamplingParams) -> None:
    texts = read_texts(source, empty_allowed=True)
    show(_continued(texts, setup, sampling), len(texts), source, setup, lambda results, left_out: "")


def _continued(texts: list[str], setup: Setup, sampling: SamplingParams) -> Iterator[Continued]:
    from dualmask.inference.autoregressive import write
    from dualmask.inference.loading import load

    loaded = load(setup.model, setup.device, family="bigram")
    prompts = [loaded.tokenizer.encode(text) for text in texts]
    behind = write(loaded.model, prompts, tokens=TOKENS, sampling=[sampling] * len(texts))
    for text, prompt, ids in zip(texts, prompts, behind, strict=True):
        output = loaded.tokenizer.decode([*prompt, *ids])
        yield Continued(output, {"input": text, "output": output, "mode": "generate", "seed": sampling.seed})
