"""Text to ids and back, without loss: the one contract between data_pipeline and the models.

A sentencepiece model with identity normalisation and byte fallback, so ``decode(encode(x)) == x`` for any Unicode
text. The five special ids are sentencepiece *control* symbols: no user text, not even the literal ``[MASK]``,
encodes to them; they are inserted by id only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece as spm

PAD, BOS, EOS, MASK, PRED = "<pad>", "<bos>", "<eos>", "[MASK]", "[PRED]"
UNKNOWN = "<unk>"  # sentencepiece insists on one; byte fallback leaves nothing unknown
PAD_ID, UNK_ID, BOS_ID, EOS_ID, MASK_ID, PRED_ID = range(6)
SPECIAL_IDS = frozenset({PAD_ID, UNK_ID, BOS_ID, EOS_ID, MASK_ID, PRED_ID})

# sentencepiece writes a space as this character, so the character itself travels as its three UTF-8 bytes
_SPACE_MARK = "\u2581"


class Tokenizer:
    """Loads a sentencepiece model file; ``digest`` is the SHA-256 of its bytes."""

    def __init__(self, model_file: str | os.PathLike[str]) -> None:
        path = Path(model_file)
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: build the data first (dualmask data build)")
        self.model_bytes = path.read_bytes()
        self.digest = hashlib.sha256(self.model_bytes).hexdigest()
        self._pieces = spm.SentencePieceProcessor()
        self._pieces.LoadFromSerializedProto(self.model_bytes)
        wanted = {PAD: PAD_ID, UNKNOWN: UNK_ID, BOS: BOS_ID, EOS: EOS_ID, MASK: MASK_ID, PRED: PRED_ID}
        for piece, index in wanted.items():
            if self._pieces.PieceToId(piece) != index:
                raise ValueError(f"{path} was not made by `dualmask data build`: piece {piece!r} is not id {index}")
        self._mark_ids = [self._pieces.PieceToId(f"<0x{byte:02X}>") for byte in _SPACE_MARK.encode()]

    @property
    def vocab_size(self) -> int:
        return int(self._pieces.GetPieceSize())

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` alone, without BOS and EOS. Lone surrogates are not text: ValueError."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"not Unicode text: lone surrogate at character {error.start}") from None
        ids: list[int] = []
        for number, part in enumerate(text.split(_SPACE_MARK)):
            if number:
                ids += self._mark_ids
            ids += self._pieces.EncodeAsIds(part)
        return ids

    def encode_lines(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a whole sequence; special ids are skipped, broken byte runs become U+FFFD."""
        return str(self._pieces.DecodeIds([index for index in ids if index not in SPECIAL_IDS]))

    def piece(self, index: int) -> str:
        """One token as a person reads it: a leading space shown as it is."""
        return str(self._pieces.IdToPiece(index)).replace(_SPACE_MARK, " ")
