"""What the engine must know of each token id: plain facts read off the tokenizer once, no text at run time."""

# V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Lexicon:
    """One entry a token id.

    characters    [V] int64: characters of text that the token begins (the first byte of a character counts for it all)
    continuation  [V] bool: begins with a later byte of a character: never parted from the token in front of it
    writable      [V] bool: may be filled in. Neither special ids nor control characters nor parts of characters: slots
                  are filled each for itself, so parts would not fit together
    begins_space  [V] bool: starts with a space
    ends_sentence [V] bool: ends with . ! ? or a line break
    """

    characters: Tensor
    continuation: Tensor
    writable: Tensor
    begins_space: Tensor
    ends_sentence: Tensor

    def to(self, device: torch.device) -> Lexicon:
        return Lexicon(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def read_lexicon(tokenizer: Tokenizer) -> Lexicon:
    contents = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
    return Lexicon(
        characters=torch.tensor([_characters(content) for content in contents]),
        continuation=torch.tensor([tokenizer.continues(index) for index in range(len(contents))]),
        writable=torch.tensor([_writable(content) for content in contents]),
        begins_space=torch.tensor([content.startswith(b" ") for content in contents]),
        ends_sentence=torch.tensor([content.endswith((b".", b"!", b"?", b"\n")) for content in contents]),
    )


def character_starts(ids: Sequence[int], lexicon: Lexicon) -> Tensor:
    """[tokens + 1] the character at which each token begins, and the length of the text."""
    widths = lexicon.characters[torch.tensor(ids, dtype=torch.long)]
    return torch.nn.functional.pad(widths.cumsum(0), (1, 0))


def _characters(content: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in content)


def _writable(content: bytes) -> bool:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    return text != "" and all(letter.isprintable() or letter in "\n\t" for letter in text)
