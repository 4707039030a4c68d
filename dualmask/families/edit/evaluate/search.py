"""The search for thresholds: each in turn, with the best of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.windows import SecondThoughts, WindowedModel, WindowedScores
from dualmask.families.edit.told import ToldGaps
from dualmask.ops.gaps import Skeleton

Found = TypeVar("Found")

# thresholds and the values that are tried
GRID: Sequence[tuple[str, Sequence[float]]] = (
    ("fill_threshold", (0.0, 0.2, 0.4, 0.6, 0.8)),
    ("edit_threshold", (0.1, 0.2, 0.35, 0.65, 0.8)),
    ("spelling_threshold", (0.02, 0.1, 0.3, 0.6)),
    ("wording_threshold", (0.9, 0.95, 0.98, 0.99, 0.995, 0.998)),
    ("insert_threshold", (0.35, 0.65, 0.8, 0.9)),
    ("preference", (0.0, 2.0, 4.0, 6.0)),
    ("gate_threshold", (0.02, 0.1, 0.3)),
    ("fill_threshold", (0.0, 0.1, 0.3, 0.5, 0.7)),
    ("edit_threshold", (0.05, 0.15, 0.25, 0.5, 0.75)),
    ("insert_threshold", (0.2, 0.35, 0.5)),
    ("wording_threshold", (0.7, 0.8, 0.9, 0.95, 0.98)),
    ("preference", (1.0, 3.0, 5.0, 8.0)),
)


def search(measure: Callable[[OperatingPoint], Found], worth: Callable[[Found], Any]) -> dict[OperatingPoint, Found]:
    """What ``measure`` found at each point tried. The search goes on from the point that is worth most."""
    best = OperatingPoint()
    tried = {best: measure(best)}
    for name, values in GRID:
        for value in values:
            point = replace(best, **{name: value})
            if point not in tried:
                tried[point] = measure(point)
        best = max(tried, key=lambda point: worth(tried[point]))
    return tried


def read_once(engine: Engine) -> None:
    """From now on the engine remembers what the model said of drafts: no threshold changes that."""
    engine.model = _ReadOnce(engine.model)


class _ReadOnce(WindowedModel):
    def __init__(self, model: WindowedModel) -> None:
        super().__init__(model.model, model.lexicon)
        self._said: dict[bytes, WindowedScores] = {}
        self._counted: dict[bytes, Tensor] = {}
        self._reconsidered: dict[bytes, SecondThoughts] = {}
        self._log_probs: dict[bytes, Tensor] = {}

    def read(self, *planes: Tensor) -> WindowedScores:
        drafts = _key(planes)
        if drafts not in self._said:
            self._said[drafts] = super().read(*planes)
        return self._said[drafts]

    def gap_logits(self, skeleton: Skeleton, expected: Tensor, told: ToldGaps) -> Tensor:
        asked = _key([skeleton.tokens, skeleton.length, expected, *told])
        if asked not in self._counted:
            self._counted[asked] = super().gap_logits(skeleton, expected, told)
        return self._counted[asked]

    def reconsider(self, *planes: Tensor) -> SecondThoughts:
        words = _key(planes)
        if words not in self._reconsidered:
            self._reconsidered[words] = super().reconsider(*planes)
        return self._reconsidered[words]

    def log_probs(self, tokens: Tensor, length: Tensor, asked: Tensor) -> Tensor:
        """Of all tokens of each text by itself: which of them are asked about depends on thresholds."""
        texts = [_key([row[:size]]) for row, size in zip(tokens, length.tolist(), strict=True)]
        unread = [row for row, text in enumerate(texts) if text not in self._log_probs]
        if unread:
            rows = torch.tensor(unread)
            found = zip(
                unread, super().log_probs(tokens[rows], length[rows], torch.ones_like(asked[rows])), strict=True
            )
            self._log_probs |= {texts[row]: nats[: int(length[row])] for row, nats in found}
        out = torch.zeros_like(tokens, dtype=torch.float32)
        for row, text in enumerate(texts):
            out[row, : len(self._log_probs[text])] = self._log_probs[text]
        return out * asked


def _key(planes: Iterable[Tensor]) -> bytes:
    return b"".join(plane.cpu().numpy().tobytes() for plane in planes)
