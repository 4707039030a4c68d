"""The alignment of a draft with its target: labels for any draft, without annotation.

One longest common subsequence per text. The search runs in rapidfuzz (C++, bit-parallel: T·U/64 word operations), one
call per row; its matching blocks become arrays in numpy. A batched alternative, which computed a row of the dynamic
programme per tensor operation with prefix and suffix tables instead of back-tracing, was implemented and timed: it is
far slower on a CPU, at 16 texts of 64 tokens and at 64 texts of 512, and needs 2·T·U integers per text.
"""

# B batch, T tokens of the draft, U tokens of the target, G gaps = T-1

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq, Levenshtein
from torch import Tensor

from dualmask.core import host
from dualmask.ops.gaps import drop, gap_present

Ids = NDArray[np.int64]
_BEYOND = 2**31  # greater than every position


def align(draft: Tensor, draft_length: Tensor, target: Tensor, target_length: Tensor) -> Tensor:
    """[B, T] int64: the target position of every draft token on one longest common subsequence, -1 for the others.

    draft [B, T] and target [B, U] ids of lengths [B] ≥ 2. BOS and EOS always match; the positions of matched tokens
    increase strictly. The result is on the device of ``draft``.

    Canonical: the common subsequence stands as far left as it can, in the draft as well as in the target. Of a token
    that is written twice the second one is therefore wrong, always: labels that sometimes say this and sometimes that
    are noise in the easiest lesson there is.
    """
    planes = host.Copy(draft, draft_length, target, target_length).wait()
    return host.to_device(align_rows(*planes), draft.device)


def align_rows(draft: Ids, draft_length: Ids, target: Ids, target_length: Ids) -> Ids:
    """``align`` on the host."""
    match = np.full(draft.shape, -1, dtype=np.int64)
    for row, (size, wanted_size) in enumerate(zip(draft_length.tolist(), target_length.tolist(), strict=True)):
        alike = 1 + _common_prefix(draft[row, 1 : size - 1], target[row, 1 : wanted_size - 1])
        match[row, :alike] = np.arange(alike)
        inner, wanted = draft[row, alike : size - 1].tolist(), target[row, alike : wanted_size - 1].tolist()
        if inner and wanted:
            blocks = LCSseq.opcodes(inner, wanted).as_matching_blocks()
            common = [token for block in blocks for token in inner[block.a : block.a + block.size]]
            match[row, leftmost(common, inner, alike)] = leftmost(common, wanted, alike)
        match[row, size - 1] = wanted_size - 1
    return match


def _common_prefix(a: Ids, b: Ids) -> int:
    """Number of tokens with which both begin, as does their longest common subsequence."""
    size = min(len(a), len(b))
    differ = a[:size] != b[:size]
    return int(differ.argmax()) if differ.any() else size


def leftmost(part: Sequence[int], ids: Sequence[int], first: int) -> list[int]:
    """Where the subsequence ``part`` of ``ids`` first stands in it, counted from ``first``."""
    places, start = [], 0
    for token in part:
        place = ids.index(token, start)
        places.append(first + place)
        start = place + 1
    return places


def edit_distance(a: Tensor, a_length: Tensor, b: Tensor, b_length: Tensor) -> Tensor:
    """[B] float32 in [0, 1]: Levenshtein distance (unit costs) of a [B, T] and b [B, U] over the longer length."""
    a_ids, a_size, b_ids, b_size = host.Copy(a, a_length, b, b_length).wait()
    pairs = zip(_rows(a_ids, a_size), _rows(b_ids, b_size), strict=True)
    distance = np.array([Levenshtein.normalized_distance(*pair) for pair in pairs], dtype=np.float32)
    return host.to_device(distance, a.device)


def _rows(tokens: Ids, length: Ids) -> list[list[int]]:
    """The sequences without their padding."""
    return [row[:size] for row, size in zip(tokens.tolist(), length.tolist(), strict=True)]


@dataclass(frozen=True)
class Holes:
    """The tokens missing from the gaps of a skeleton.

    count [B, G] int64: number of masks that the gap needs; 0 where the gap does not exist
    first [B, G] int64: target position of the first missing token; 0 after a wrong token
    known [B, G] bool:  both neighbours are correct, so that the r-th mask stands for the target token first + r
    """

    count: Tensor
    first: Tensor
    known: Tensor


def holes(match: Tensor, keep: Tensor) -> Holes:
    """The holes of the skeleton that consists of the tokens ``keep`` (gap j lies between its tokens j and j+1).

    match [B, T] from ``align``; keep [B, T] bool, False on padding, True on BOS and EOS. Between two correct tokens, n
    target tokens are missing and w wrong tokens were kept. Since the alignment does not say where between them the
    wrong tokens belong, the first gap takes all masks: n - w, as the wrong tokens are deleted in a later round.
    """
    skeleton = drop(match, keep)
    positions, width = skeleton.tokens, match.shape[1]
    exists = gap_present(skeleton.length, width)
    index = torch.arange(width, device=match.device).expand_as(match)
    right = (positions >= 0) & (index < skeleton.length[:, None])
    missing = _next(positions, right) - positions[:, :-1] - 1
    wrong = _next(index, right) - index[:, :-1] - 1
    first_gap = right[:, :-1] & exists
    count = torch.where(first_gap, (missing - wrong).clamp_min(0), 0)
    return Holes(count, torch.where(first_gap, positions[:, :-1] + 1, 0), first_gap & (wrong == 0))


def _next(value: Tensor, where: Tensor) -> Tensor:
    """[B, G] ``value`` [B, T] of the next token after each gap where ``where`` holds; values increase there."""
    nearest = torch.where(where, value, _BEYOND).flip(1).cummin(1).values.flip(1)
    return nearest[:, 1:]


def within(count: Tensor, room: Tensor) -> Tensor:
    """[B, G] ``count`` [B, G] cut from the right, so that the sum is at most ``room`` [B] ≥ 0."""
    total = torch.minimum(count.cumsum(1), room[:, None])
    return total.diff(dim=1, prepend=total.new_zeros(len(total), 1))
