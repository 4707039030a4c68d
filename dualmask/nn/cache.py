"""The KV cache of a causal trunk: for inference (``KVCache``) and, with gradients, for training (``PrefixCache``)."""

# B batch, T new tokens, S tokens so far, H heads, E head width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Appendable(Protocol):
    def append(self, new: Tensor) -> Tensor: ...


class TrunkCache(Protocol):
    """Needed by a trunk: presence [B, S, 1], embeddings [B, S, D], each layer's keys and values [2, B, H, S, E]."""

    @property
    def present(self) -> Appendable: ...
    @property
    def embeddings(self) -> Appendable: ...
    @property
    def keys_values(self) -> Sequence[Appendable]: ...


class CacheBuffer:
    """A tensor that grows along the token axis (the last but one) in memory for ``room`` tokens, allocated once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: Tensor | None = None
        self._length = 0

    def append(self, new: Tensor) -> Tensor:
        """[…, S, E]: everything appended so far, with ``new`` […, T, E] at the end."""
        if self._kept is None:
            self._kept = new.new_empty(*new.shape[:-2], self._room, new.shape[-1])
        start, self._length = self._length, self._length + new.shape[-2]
        assert self._length <= self._room, f"{self._length} tokens in a cache for {self._room}"
        self._kept[..., start : self._length, :] = new
        return self._kept[..., : self._length, :]

    def crop(self, number: int) -> None:
        """Removes the last ``number`` tokens."""
        self._length -= number

    def rows(self, index: Tensor, axis: int) -> CacheBuffer:
        """A copy with the sequences ``index`` along ``axis``."""
        copy = CacheBuffer(self._room)
        copy._kept = None if self._kept is None else self._kept.index_select(axis, index)
        copy._length = self._length
        return copy


class KVCache:
    """The cache of a trunk of ``layers`` blocks for ``room`` tokens per sequence. For inference: without gradient."""

    def __init__(self, layers: int, room: int) -> None:
        self.present = CacheBuffer(room)  # [B, S, 1]
        self.embeddings = CacheBuffer(room)  # [B, S, D]
        self.keys_values = [CacheBuffer(room) for _ in range(layers)]  # [2, B, H, S, E]

    def crop(self, number: int) -> None:
        """Removes the last ``number`` tokens."""
        for buffer in (self.present, self.embeddings, *self.keys_values):
            buffer.crop(number)

    def rows(self, index: Tensor) -> KVCache:
        """A copy with the sequences ``index``."""
        copy = KVCache(0, 0)
        copy.present, copy.embeddings = self.present.rows(index, 0), self.embeddings.rows(index, 0)
        copy.keys_values = [buffer.rows(index, 1) for buffer in self.keys_values]
        return copy


class PrefixTensor:
    """A prefix that is read several times, each time followed by other tokens. Keeps the gradient."""

    def __init__(self, kept: Tensor | None = None) -> None:
        self.kept = kept
        self.whole: Tensor | None = None

    def append(self, new: Tensor) -> Tensor:
        """[…, S, E]: the prefix with ``new`` […, T, E] at the end; the next call starts from the same prefix.

        The result depends on no hidden state, so activation checkpointing may repeat the call.
        """
        self.whole = new if self.kept is None else torch.cat([self.kept, new], dim=-2)
        return self.whole

    def appended(self) -> PrefixTensor:
        """A prefix that consists of what the last call of ``append`` returned."""
        return PrefixTensor(self.whole)


@dataclass(frozen=True)
class PrefixCache:
    """The cache of a causal trunk over prefixes of any lengths. For training: it keeps the gradient."""

    present: PrefixTensor
    embeddings: PrefixTensor
    keys_values: Sequence[PrefixTensor]

    @classmethod
    def empty(cls, layers: int) -> PrefixCache:
        return cls(PrefixTensor(), PrefixTensor(), [PrefixTensor() for _ in range(layers)])

    def appended(self) -> PrefixCache:
        """The prefix extended by the tokens of the trunk's last pass, which was given this cache."""
        return PrefixCache(
            self.present.appended(), self.embeddings.appended(), [layer.appended() for layer in self.keys_values]
        )

    def up_to(self, length: Tensor, reach: int) -> PrefixCache:
        """The first ``length`` [B] tokens of each sequence; prefixes are padded on the right.

        reach: number of previous embeddings that the trunk's convolution reads; they are moved to the right end.
        """
        assert self.present.kept is not None
        assert self.embeddings.kept is not None
        index = torch.arange(self.present.kept.shape[1], device=length.device)
        present = self.present.kept & (index < length[:, None])[..., None]
        last = length[:, None] - reach + torch.arange(reach, device=length.device)
        width = self.embeddings.kept.shape[-1]
        tail = self.embeddings.kept.gather(1, last.clamp_min(0)[..., None].expand(-1, -1, width))
        return PrefixCache(PrefixTensor(present), PrefixTensor(tail * (last >= 0)[..., None]), self.keys_values)
