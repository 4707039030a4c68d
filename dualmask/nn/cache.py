"""What a causal trunk remembers of the tokens that it has read, so that it reads each of them once."""

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
    """What a causal trunk asks of its memory: presence [B, S, 1], embeddings [B, S, D], a layer's [2, B, H, S, E]."""

    @property
    def present(self) -> Appendable: ...
    @property
    def embeddings(self) -> Appendable: ...
    @property
    def keys_values(self) -> Sequence[Appendable]: ...


class CacheBuffer:
    """A tensor that grows along the tokens (its last axis but one), in room that is taken once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: Tensor | None = None
        self._length = 0

    def append(self, new: Tensor) -> Tensor:
        """[…, S, E] all that was ever given, ``new`` […, T, E] at the end."""
        if self._kept is None:
            self._kept = new.new_empty(*new.shape[:-2], self._room, new.shape[-1])
        start, self._length = self._length, self._length + new.shape[-2]
        assert self._length <= self._room, f"{self._length} tokens in a cache for {self._room}"
        self._kept[..., start : self._length, :] = new
        return self._kept[..., : self._length, :]

    def crop(self, number: int) -> None:
        """The last ``number`` tokens make room for others."""
        self._length -= number

    def rows(self, index: Tensor, axis: int) -> CacheBuffer:
        """A copy for some of the texts, which lie along ``axis``."""
        copy = CacheBuffer(self._room)
        copy._kept = None if self._kept is None else self._kept.index_select(axis, index)
        copy._length = self._length
        return copy


class KVCache:
    """For ``room`` tokens a row of a trunk of ``layers`` blocks. For inference: it keeps no gradient."""

    def __init__(self, layers: int, room: int) -> None:
        self.present = CacheBuffer(room)  # [B, S, 1]
        self.embeddings = CacheBuffer(room)  # [B, S, D]
        self.keys_values = [CacheBuffer(room) for _ in range(layers)]  # [2, B, H, S, E]

    def crop(self, number: int) -> None:
        """The last ``number`` tokens were only tried."""
        for memory in (self.present, self.embeddings, *self.keys_values):
            memory.crop(number)

    def rows(self, index: Tensor) -> KVCache:
        """A copy for some of the texts."""
        copy = KVCache(0, 0)
        copy.present, copy.embeddings = self.present.rows(index, 0), self.embeddings.rows(index, 0)
        copy.keys_values = [memory.rows(index, 1) for memory in self.keys_values]
        return copy


class PrefixTensor:
    """A tensor that is looked back at many times, each time from other tokens behind it. Keeps the gradient."""

    def __init__(self, kept: Tensor | None = None) -> None:
        self.kept = kept
        self.whole: Tensor | None = None

    def append(self, new: Tensor) -> Tensor:
        """[…, S, E] what is kept, ``new`` […, T, E] at the end; the next call begins with what is kept again.

        Without hidden state that a forward depends on, so activation checkpointing may repeat it.
        """
        self.whole = new if self.kept is None else torch.cat([self.kept, new], dim=-2)
        return self.whole

    def appended(self) -> PrefixTensor:
        """One that keeps what the last call returned."""
        return PrefixTensor(self.whole)


@dataclass(frozen=True)
class PrefixCache:
    """What a causal trunk has read of texts of any lengths: for training: with its gradient."""

    present: PrefixTensor
    embeddings: PrefixTensor
    keys_values: Sequence[PrefixTensor]

    @classmethod
    def empty(cls, layers: int) -> PrefixCache:
        return cls(PrefixTensor(), PrefixTensor(), [PrefixTensor() for _ in range(layers)])

    def appended(self) -> PrefixCache:
        """With the tokens of the trunk's last pass, which was given this prefix."""
        return PrefixCache(
            self.present.appended(), self.embeddings.appended(), [layer.appended() for layer in self.keys_values]
        )

    def up_to(self, length: Tensor, reach: int) -> PrefixCache:
        """Cut behind the first ``length`` [B] tokens of each text, which stand on the left.

        reach: how many embeddings a trunk asks back for; they go to the right end, where it looks for them.
        """
        assert self.present.kept is not None
        assert self.embeddings.kept is not None
        place = torch.arange(self.present.kept.shape[1], device=length.device)
        present = self.present.kept & (place < length[:, None])[..., None]
        last = length[:, None] - reach + torch.arange(reach, device=length.device)
        width = self.embeddings.kept.shape[-1]
        tail = self.embeddings.kept.gather(1, last.clamp_min(0)[..., None].expand(-1, -1, width))
        return PrefixCache(PrefixTensor(present), PrefixTensor(tail * (last >= 0)[..., None]), self.keys_values)
