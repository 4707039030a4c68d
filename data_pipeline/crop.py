"""What happens to rows before they are a batch: packed ones come apart into texts, and some texts are cropped."""

# R rows, B texts, T tokens, V pieces of the vocabulary

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import UInt64, mix, unit
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID

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

    With borders a cropped text begins behind the first end of a line, if enough is left there, and a cut moves left
    to the nearest end of a sentence, if there is one. So cropped texts are complete, as people's texts are, and a model
    can tell one that has ended from one that breaks off.
    """
    borders = wanted.borders
    chosen = np.flatnonzero((unit(mix(keys, CROP_DRAW)) < wanted.share) & (lengths > SHORTEST_CROP))
    if borders is not None:
        for row in chosen:
            lengths[row] = _from_first_line(tokens[row], lengths[row], borders.line_ends)
    room = np.maximum(lengths - SHORTEST_CROP, 0)
    cut = SHORTEST_CROP + (unit(mix(keys, LENGTH_DRAW)) * room).astype(np.int64)
    for row in chosen[room[chosen] > 0]:
        if borders is not None:
            ends = np.flatnonzero(borders.sentence_ends[tokens[row, SHORTEST_CROP - 2 : cut[row] - 1]])
            cut[row] = SHORTEST_CROP + ends[-1] if len(ends) else cut[row]
        tokens[row, cut[row] - 1] = EOS_ID
        tokens[row, cut[row] :] = PAD_ID
        lengths[row] = cut[row]


def _from_first_line(row: Ids, length: int, line_ends: NDArray[np.bool_]) -> int:
    """Moves what stands behind the first line break of row [T] behind BOS; returns the new length."""
    breaks = np.flatnonzero(line_ends[row[1 : length - SHORTEST_CROP + 1]])
    gone = int(breaks[0]) + 1 if len(breaks) else 0
    row[1 : length - gone] = row[1 + gone : length].copy()
    row[length - gone : length] = PAD_ID
    return length - gone
