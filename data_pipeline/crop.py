"""What happens to rows before they are a batch: packed ones come apart into texts, and some texts are cropped."""

# R rows, B texts, T tokens, V pieces of the vocabulary

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import UInt64, mix, unit
from dualmask.core.lexicon import read_lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

Ids = NDArray[np.int64]

SHORTEST_CROP = 8  # tokens, BOS and EOS included
CROP_DRAW, LENGTH_DRAW = (
    1,
    2,
)  # kinds of draws from the key of a text; those of endless.py and reader.py have other numbers


@dataclass(frozen=True)
class Borders:
    """Tokens behind which a cropped text may begin or end."""

    line_ends: NDArray[np.bool_]  # [V] ends with a line break
    sentence_ends: NDArray[np.bool_]  # [V] ends a sentence
    without_blank: Ids  # [V] the piece without the blank in front of it; -1 where there is none

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Borders:
        lexicon = read_lexicon(tokenizer)
        contents = [tokenizer.content(index) for index in range(tokenizer.vocab_size)]
        number = {content: index for index, content in enumerate(contents) if content}
        twins = [number.get(content[1:], -1) if content.startswith(b" ") else -1 for content in contents]
        return cls(lexicon.ends_line.numpy(), lexicon.ends_sentence.numpy(), np.array(twins))


@dataclass(frozen=True)
class Crop:
    """A ``share`` of the texts is cropped, at ``borders`` if these are given."""

    share: float = 0.0
    borders: Borders | None = None


WHOLE = Crop()


def unpack(rows: Ids, lengths: Ids) -> tuple[Ids, Ids, Ids, Ids]:
    """The texts of packed rows [R, T] of ``lengths`` [R]: tokens [B, T], lengths [B], how many a row holds [R], and the
    number of each text in its row [B]."""
    row, start = np.nonzero(rows == BOS_ID)
    number = np.bincount(row, minlength=len(rows))
    last = np.append(row[1:] != row[:-1], True)  # of its row
    end = np.where(last, lengths[row], np.append(start[1:], 0))
    position = np.arange(rows.shape[1])
    source = np.minimum(start[:, None] + position, rows.shape[1] - 1)
    tokens = np.where(position < (end - start)[:, None], rows[row[:, None], source], PAD_ID)
    return tokens, end - start, number, np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)


def crop(tokens: Ids, lengths: Ids, keys: UInt64, wanted: Crop) -> None:
    """Crops a share of the rows [B, T] in place to a random length, ended by EOS; a function of ``keys`` [B].

    With borders a cropped text begins behind the first end of a line, or where there is none of a sentence, if enough
    is left there, and a cut moves left to the nearest end of a sentence, if there is one. So cropped texts are
    complete, as people's texts are: a model can tell one that has ended from one that breaks off, and how one begins.
    """
    borders = wanted.borders
    chosen = np.flatnonzero((unit(mix(keys, CROP_DRAW)) < wanted.share) & (lengths > SHORTEST_CROP))
    if borders is not None:
        for row in chosen:
            lengths[row] = _from_border(tokens[row], lengths[row], borders)
    room = np.maximum(lengths - SHORTEST_CROP, 0)
    cut = SHORTEST_CROP + (unit(mix(keys, LENGTH_DRAW)) * room).astype(np.int64)
    for row in chosen[room[chosen] > 0]:
        if borders is not None:
            ends = np.flatnonzero(borders.sentence_ends[tokens[row, SHORTEST_CROP - 2 : cut[row] - 1]])
            cut[row] = SHORTEST_CROP + ends[-1] if len(ends) else cut[row]
        tokens[row, cut[row] - 1] = EOS_ID
        tokens[row, cut[row] :] = PAD_ID
        lengths[row] = cut[row]


def _from_border(row: Ids, length: int, borders: Borders) -> int:
    """Moves what stands behind the first line break, or behind the first sentence, of row [T] behind BOS; returns the
    new length. The blank behind a sentence goes."""
    begun = row[1 : length - SHORTEST_CROP + 1]
    lines = np.flatnonzero(borders.line_ends[begun])
    twin = borders.without_blank[row[2 : length - SHORTEST_CROP + 2]]
    gone = (lines if len(lines) else np.flatnonzero(borders.sentence_ends[begun] & (twin >= 0)))[:1] + 1
    if not len(gone):
        return length
    first = int(gone[0])
    row[1 : length - first] = row[1 + first : length].copy()
    row[length - first : length] = PAD_ID
    if not len(lines):
        row[1] = twin[first - 1]
    return length - first
