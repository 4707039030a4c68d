"""The two kinds of tokenizer file: a sentencepiece model, and the byte-level BPE of a Hugging Face ``tokenizer.json``.

Either kind has ``contents``, the UTF-8 bytes of each id (possibly only a part of a character); ``fallback``, the ids
that write a character byte by byte because the vocabulary lacks it; and ``encode``, from text to ids. The first ids
are those of special symbols, which have no text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

# sentencepiece writes a space as this character, so the character itself is encoded as its three UTF-8 bytes
_SPACE_MARK = "\u2581"

_PROBE = "word \t  Word's 12,3\r\n\n é 日本\u00a0😀 \x00<|endoftext|> [MASK] end "


def read_pieces(content: bytes, specials: Sequence[str]) -> SentencePieces | ByteLevelPieces:
    """The pieces of a tokenizer file of either kind, after the special symbols ``specials``. Raises ValueError."""
    return (ByteLevelPieces if content.startswith(b"{") else SentencePieces)(content, specials)


class SentencePieces:
    """A sentencepiece model with identity normalisation and byte fallback, its special symbols first."""

    def __init__(self, content: bytes, specials: Sequence[str]) -> None:
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError:
            raise ValueError("neither a sentencepiece model nor a tokenizer.json") from None
        for index, special in enumerate(specials):
            if self._model.PieceToId(special) != index:
                raise ValueError(f"not made by `dualmask data build`: piece {special!r} is not id {index}")
        self.contents = [self._content(index) for index in range(self._model.GetPieceSize())]
        self.fallback = frozenset(index for index in range(len(self.contents)) if self._model.IsByte(index))
        self._mark_ids = [self._model.PieceToId(f"<0x{byte:02X}>") for byte in _SPACE_MARK.encode()]

    def _content(self, index: int) -> bytes:
        if self._model.IsControl(index) or self._model.IsUnknown(index):
            return b""
        piece = str(self._model.IdToPiece(index))
        return bytes.fromhex(piece[3:5]) if self._model.IsByte(index) else piece.replace(_SPACE_MARK, " ").encode()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(text.split(_SPACE_MARK)):
            if number:
                ids += self._mark_ids
            ids += self._model.EncodeAsIds(part)
        return ids


class ByteLevelPieces:
    """The BPE of a ``tokenizer.json`` (GPT-2 and models like it); its own ids follow those of the special symbols.

    Everything that would change a text or insert symbols is disabled: normalizer, dropout, post-processor, and the
    file's added tokens. Added tokens that are also pieces, like ``<|endoftext|>``, keep their ids but have no text.
    """

    def __init__(self, content: bytes, specials: Sequence[str]) -> None:
        # texts are encoded one at a time: threads would gain nothing, and are unsafe if the process forks
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import tokenizers

        tree, vocab = _read_bpe(content)
        added = {token["content"] for token in tree["added_tokens"] or ()}
        tree |= dict.fromkeys(("normalizer", "post_processor", "truncation", "padding"))
        tree |= {"added_tokens": [], "model": tree["model"] | {"dropout": None}}
        try:
            self._model = tokenizers.Tokenizer.from_str(json.dumps(tree))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"not a tokenizer.json that the library tokenizers reads: {error}") from None
        self._first = len(specials)
        pieces = sorted(vocab, key=vocab.__getitem__)
        self.contents = [b""] * self._first + [b"" if piece in added else _bytes_of(piece) for piece in pieces]
        self.fallback = frozenset(index for index, content in enumerate(self.contents) if not _is_text(content))
        back = b"".join(self.contents[index] for index in self.encode(_PROBE))
        if back != _PROBE.encode():
            raise ValueError("tokenizer.json changes the text that it encodes (add_prefix_space, suffixes of words?)")

    def encode(self, text: str) -> list[int]:
        (encoded,) = self._model.encode_batch_fast([text], add_special_tokens=False)
        return [self._first + index for index in encoded.ids]


def _read_bpe(content: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """The parsed file and its vocabulary, which contains all 256 bytes and thus can encode every text."""
    try:
        tree = json.loads(content)
        vocab, _, _ = tree["model"]["vocab"], tree["model"]["merges"], tree.setdefault("added_tokens", [])
        whole = sorted(vocab.values()) == list(range(len(vocab)))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("not a tokenizer.json with a BPE model") from None
    if not whole or not vocab.keys() >= _ALPHABET.keys():
        raise ValueError("tokenizer.json is not byte-level: it lacks some of the 256 bytes, or some ids")
    return tree, vocab


def _alphabet() -> dict[str, int]:
    """The byte of each character of a byte-level piece: printable Latin-1 stands for itself, the others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _alphabet()


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(piece: str) -> bytes:
    try:
        return bytes(map(_ALPHABET.__getitem__, piece))
    except KeyError:
        raise ValueError(f"tokenizer.json is not byte-level: piece {piece!r}") from None
