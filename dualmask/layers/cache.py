"""What a causal trunk remembers of the tokens that it has read, so that it reads each of them once."""

# B batch, T new tokens, S tokens so far, H heads, E head width

from __future__ import annotations

from torch import Tensor


class Memory:
    """A tensor that grows along the tokens (its last axis but one), in room that is taken once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: Tensor | None = None
        self._length = 0

    def extend(self, new: Tensor) -> Tensor:
        """[…, S, E] all that was ever given, ``new`` […, T, E] at the end."""
        if self._kept is None:
            self._kept = new.new_empty(*new.shape[:-2], self._room, new.shape[-1])
        start, self._length = self._length, self._length + new.shape[-2]
        assert self._length <= self._room, f"{self._length} tokens in a cache for {self._room}"
        self._kept[..., start : self._length, :] = new
        return self._kept[..., : self._length, :]


class Cache:
    """For ``room`` tokens a row of a trunk of ``layers`` blocks. For inference: it keeps no gradient."""

    def __init__(self, layers: int, room: int) -> None:
        self.present = Memory(room)  # [B, S, 1]
        self.embeddings = Memory(room)  # [B, S, D]
        self.keys_values = [Memory(room) for _ in range(layers)]  # [2, B, H, S, E]
