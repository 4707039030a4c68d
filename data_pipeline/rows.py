"""Which rows are cut from a stream of ids: pure functions of the lengths of its documents."""

# P parts of documents, R rows, V ids of the vocabulary

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.shards import Tokens
from dualmask.core.tokenizer import BOS_ID, EOS_ID

Rows = NDArray[np.int64]  # [R, 2] start in the stream and number of ids

SHORTEST_ROW = 8  # ids of a dev or test row, BOS and EOS excluded
BORDER = 2  # ids between two documents of a row: the EOS of the first and the BOS of the second


def training_rows(stream_length: int, size: int) -> Rows:
    """Consecutive rows of ``size`` ids; an incomplete last row is dropped unless it is the only one."""
    starts = (
        np.arange(0, stream_length - size + 1, size) if stream_length >= size else np.zeros(min(stream_length, 1), int)
    )
    return np.stack([starts, np.full(len(starts), min(size, stream_length))], axis=1).astype(np.int64)


def document_rows(lengths: Sequence[int], gap: int, size: int, stream: Tokens, continues: NDArray[np.bool_]) -> Rows:
    """Rows of at most ``size`` ids, each inside one document; cut between characters, none below SHORTEST_ROW ids.

    ``gap``: ids between two documents. ``continues`` [V]: ids that begin with a later byte of a character.
    """
    rows = []
    start = 0
    for length in lengths:
        stop = start + length
        while stop - start >= SHORTEST_ROW:
            cut = min(start + size, stop)
            while cut < stop and cut > start + 1 and continues[stream[cut]]:
                cut -= 1
            rows.append((start, cut - start))
            start = cut
        start = stop + gap
    return np.array(rows, np.int64).reshape(-1, 2)


def packed_rows(stream: Tokens, parts: Rows, size: int) -> tuple[Tokens, Rows]:
    """The parts [P, 2] of documents in ``stream``, put together to rows of at most ``size`` ids: another stream and its
    rows [R, 2]. Between two parts of a row stand the EOS of the first and the BOS of the second."""
    return joined(stream, parts, best_fit(parts[:, 1].tolist(), size, BORDER))


def joined(stream: Tokens, parts: Rows, together: Sequence[Sequence[int]]) -> tuple[Tokens, Rows]:
    """As ``packed_rows``; ``together``: the parts of each row."""
    border = np.array([EOS_ID, BOS_ID], stream.dtype)
    ids: list[Tokens] = []
    lengths: list[int] = []
    for row in together:
        bordered = [piece for start, length in parts[row] for piece in (border, stream[start : start + length])]
        ids += bordered[1:]
        lengths.append(sum(map(len, bordered[1:])))
    starts = np.cumsum([0, *lengths])[:-1]
    return np.concatenate([stream[:0], *ids]), np.array([starts, lengths], np.int64).T


def best_fit(lengths: Sequence[int], size: int, between: int) -> list[list[int]]:
    """Indices of the ``lengths`` in each row of ``size``, ``between`` places left free between two of them.

    Best fit, the longest first (Ding et al. 2024): each goes where it leaves the least room.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # free places: rows
    rooms: list[int] = []  # of those that there are, in ascending order
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        needed, place = lengths[index] + between, bisect.bisect_left(rooms, lengths[index] + between)
        if place == len(rooms):
            row, room = len(rows), size + between
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(place)
        rows[row].append(index)
        left = with_room.setdefault(room - needed, [])
        if not left:
            bisect.insort(rooms, room - needed)
        left.append(row)
    return rows
