"""What the engine must know of each token id: plain facts read off the tokenizer once, no text at run time."""

# V vocabulary

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.tokenizer import SPECIAL_IDS, Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Lexicon:
    """One entry a token id.

    characters    [V] int64: characters of text that the token adds (the first byte of a character counts for all of it)
    continuation  [V] bool: a later byte of a character: never parted from the token in front of it
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
    pieces = [_surface(tokenizer, index) for index in range(tokenizer.vocab_size)]
    special = torch.tensor([index in SPECIAL_IDS for index in range(len(pieces))])
    byte = torch.tensor([piece if isinstance(piece, int) else -1 for piece in pieces])
    texts = [chr(piece) if isinstance(piece, int) else piece for piece in pieces]
    continuation = (byte >= 0x80) & (byte < 0xC0)
    characters = torch.tensor([len(text) for text in texts])
    plain = torch.tensor([all(letter.isprintable() or letter in "\n\t" for letter in text) for text in texts])
    return Lexicon(
        characters=torch.where(special | continuation, 0, characters),
        continuation=continuation,
        writable=~special & plain & (byte < 0x80),
        begins_space=torch.tensor([text.startswith(" ") for text in texts]) & ~special,
        ends_sentence=torch.tensor([text[-1:] in (*".!?", "\n") for text in texts]),
    )


def _surface(tokenizer: Tokenizer, index: int) -> str | int:
    """The text of a piece, or the value of a single byte (byte fallback)."""
    piece = tokenizer.piece(index)
    match = _BYTE.fullmatch(piece)
    return int(match[1], 16) if match else piece
