"""Laws of the one round, on rules that say at random what to do: against a round played token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from dualmask.core.batch import deletable, present
from dualmask.core.tokenizer import MASK_ID, PAD_ID
from dualmask.families.edit.round import Opened, Remainder, RoundResult, play_round
from dualmask.ops.gaps import gap_present

ROWS, WIDTH, MOST = 50, 12, 3


class Random:
    """Deletes a third of the tokens, opens 0 to MOST masks a gap, writes the token's number in its gap behind 1000."""

    def __init__(self, length: Tensor) -> None:
        self.draw, self.length = torch.Generator().manual_seed(5), length

    def delete(self) -> Tensor:
        return deletable(self.length, WIDTH) & (torch.rand(ROWS, WIDTH, generator=self.draw) < 1 / 3)

    def count(self, remainder: Remainder) -> Tensor:
        number = torch.randint(0, MOST + 1, (ROWS, WIDTH - 1), generator=self.draw)
        return number * gap_present(remainder.skeleton.length, WIDTH)

    def fill(self, opened: Opened) -> Tensor:
        assert (opened.masked.tokens[opened.masked.is_mask] == MASK_ID).all()
        return torch.where(opened.masked.is_mask, 1000 + opened.rank, opened.masked.tokens)


def by_hand(draft: list[int], deleted: list[bool], count: list[int]) -> list[tuple[int, bool, int, int]]:
    """(token, written?, source, replaced) of each token that comes out."""
    out, gap = [], -1
    kept = [position for position, gone in enumerate(deleted) if not gone]
    for position, behind in zip(kept, [*kept[1:], len(draft)], strict=True):
        gap += 1
        out.append((draft[position], False, position, position))
        gone = range(position + 1, behind)
        for rank in range(count[gap] if gap < len(kept) - 1 else 0):
            out.append((1000 + rank, True, position, gone[rank] if rank < len(gone) else -1))
    return out


def played(width: int | None = None) -> tuple[Tensor, Tensor, RoundResult]:
    draw = torch.Generator().manual_seed(4)
    length = torch.randint(2, WIDTH + 1, (ROWS,), generator=draw)
    tokens = torch.randint(10, 900, (ROWS, WIDTH), generator=draw)
    tokens = torch.where(present(length, WIDTH), tokens, PAD_ID)
    return tokens, length, play_round(tokens, length, Random(length), width)


def test_a_round_is_what_deleting_and_writing_token_by_token_gives() -> None:
    tokens, length, result = played()
    assert result.tokens.shape[1] == result.length.max()
    for row, size in enumerate(length.tolist()):
        deleted = result.deleted[row, :size].tolist()
        right = by_hand(tokens[row, :size].tolist(), deleted, result.count[row].tolist())
        written = int(result.length[row])
        planes = (result.tokens, result.is_mask, result.opened.source, result.opened.replaced)
        assert list(zip(*(plane[row, :written].tolist() for plane in planes), strict=True)) == right
        assert (result.tokens[row, written:] == PAD_ID).all()
        assert bool(result.changed[row]) == (any(deleted) or written != size)


def test_what_is_known_of_a_token_goes_with_it() -> None:
    tokens, _, result = played()
    kept = ~result.is_mask & present(result.length, result.tokens.shape[1])
    assert torch.equal(result.opened.carry(tokens)[kept], result.tokens[kept])
    embedding = torch.stack([tokens, -tokens], dim=-1).float()
    assert torch.equal(result.opened.carry(embedding)[kept][:, 1], -result.tokens[kept].float())


def test_a_width_known_beforehand_changes_nothing_but_the_padding() -> None:
    _, _, result = played()
    _, _, wide = played(60)
    assert torch.equal(wide.tokens[:, : result.tokens.shape[1]], result.tokens)
    assert (wide.tokens[:, result.tokens.shape[1] :] == PAD_ID).all()
    assert torch.equal(wide.length, result.length)
