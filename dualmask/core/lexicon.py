"""Properties of each token id, read from the tokenizer once, so that inference needs no text at run time."""

# V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualmask.core.tokenizer import Tokenizer
from dualmask.core.words import is_plain

PAIRED = '"“”„«»()[]{}'


@dataclass(frozen=True)
class Lexicon:
    """One entry per token id.

    characters    [V] int64: number of characters that begin in the token (a character is counted at its first byte)
    continuation  [V] bool: begins with a later byte of a character; never separated from the token before it
    writable      [V] bool: may be filled in. Excludes special ids, control characters and parts of characters: slots
                  are filled independently of each other, so parts would not fit together
    plain         [V] bool: ASCII letters or marks, with at most one space in front (``words.is_plain``)
    fallback      [V] bool: a byte of a character that the vocabulary lacks
    begins_space  [V] bool: starts with a space
    ends_sentence [V] bool: ends with . ! ? or a line break
    ends_line     [V] bool: ends with a line break
    paired        [V] int64: number of quotation marks and brackets in it
    """

    characters: Tensor
    continuation: Tensor
    writable: Tensor
    plain: Tensor
    fallback: Tensor
    begins_space: Tensor
    ends_sentence: Tensor
    ends_line: Tensor
    paired: Tensor

    def to(self, device: torch.device) -> Lexicon:
        return Lexicon(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def read_lexicon(tokenizer: Tokenizer) -> Lexicon:
    contents = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
    return Lexicon(
        characters=torch.tensor([_characters(content) for content in contents]),
        continuation=torch.tensor([tokenizer.continues(index) for index in range(len(contents))]),
        writable=torch.tensor([_writable(content) for content in contents]),
        plain=torch.tensor([is_plain(content.decode("latin-1")) for content in contents]),
        fallback=torch.tensor([tokenizer.is_fallback(index) for index in range(len(contents))]),
        begins_space=torch.tensor([content.startswith(b" ") for content in contents]),
        ends_sentence=torch.tensor([content.endswith((b".", b"!", b"?", b"\n")) for content in contents]),
        ends_line=torch.tensor([content.endswith(b"\n") for content in contents]),
        paired=torch.tensor([sum(map(content.decode(errors="ignore").count, PAIRED)) for content in contents]),
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
