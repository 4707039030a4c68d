"""Lossless conversion of text to ids and back: the contract between data_pipeline and the models.

``decode(encode(x)) == x`` for any Unicode text. The first six ids are special, whatever the kind of tokenizer file; no
user text, not even the literal ``[MASK]``, encodes to them: they are inserted by id only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dualmask.core.pieces import read_pieces

PAD, BOS, EOS, MASK, PRED = "<pad>", "<bos>", "<eos>", "[MASK]", "[PRED]"
UNKNOWN = "<unk>"  # sentencepiece insists on one; byte fallback leaves nothing unknown
PAD_ID, UNK_ID, BOS_ID, EOS_ID, MASK_ID, PRED_ID = range(6)
SPECIALS = (PAD, UNKNOWN, BOS, EOS, MASK, PRED)
SPECIAL_IDS = frozenset(range(len(SPECIALS)))

_LONE_BYTE = re.compile("[\udc80-\udcff]")  # as the error handler surrogateescape writes it


class Tokenizer:
    """Loads a sentencepiece model or a byte-level ``tokenizer.json``; ``digest`` is the SHA-256 of the file's bytes."""

    def __init__(self, model_file: str | os.PathLike[str]) -> None:
        path = Path(model_file)
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: build the data first (dualmask data build)")
        self.model_bytes = path.read_bytes()
        self.digest = hashlib.sha256(self.model_bytes).hexdigest()
        try:
            self._pieces = read_pieces(self.model_bytes, SPECIALS)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def vocab_size(self) -> int:
        return len(self._pieces.contents)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without BOS and EOS. Raises ValueError for lone surrogates, which are not text."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"not Unicode text: lone surrogate at character {error.start}") from None
        return self._pieces.encode(text)

    def encode_lines(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a whole sequence; special ids are skipped, invalid byte sequences become U+FFFD."""
        return b"".join(map(self.content, ids)).decode(errors="replace")

    def content(self, index: int) -> bytes:
        """The UTF-8 bytes of a token, possibly only a part of a character; empty for a special id."""
        return self._pieces.contents[index]

    def continues(self, index: int) -> bool:
        """Whether the token begins with a later byte of a character, so that it needs the token before it."""
        return b"\x80" <= self.content(index)[:1] < b"\xc0"

    def is_fallback(self, index: int) -> bool:
        """Whether the token is a byte of a character that the vocabulary lacks."""
        return index in self._pieces.fallback

    def piece(self, index: int) -> str:
        """One token for display: a leading space is kept, bytes that form no character are shown as ``<0xE2>``."""
        if index in SPECIAL_IDS:
            return SPECIALS[index]
        text = self.content(index).decode(errors="surrogateescape")
        return _LONE_BYTE.sub(lambda byte: f"<0x{ord(byte[0]) - 0xDC00:02X}>", text)
