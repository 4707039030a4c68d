"""Edits that people have scored, as training batches of stage `reward`."""

# B batch, T tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dualmask.config.schema import RunConfig
from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from dualmask.families.edit.scores import read_scores
from dualmask.nn.parallel import mesh


@dataclass(frozen=True)
class ScoredBatch(Batch):
    """Drafts (as a ``Batch``), what somebody made of each, and how good people found it."""

    output: Tensor  # [B, T] ids
    output_length: Tensor  # [B]
    score: Tensor  # [B] float: deviations from the mean of the whole file


class ScoredTexts:
    """The batches of one data-parallel rank, for ever: in an order that is drawn anew in each epoch.

    A batch is a pure function of its number: a resumed run needs no cursor, and ranks change nothing.
    """

    def __init__(
        self,
        edits: Sequence[tuple[Sequence[int], Sequence[int], float]],
        *,
        width: int,
        batch_size: int,
        data_rank: int = 0,
        data_world: int = 1,
        seed: int = 0,
    ) -> None:
        """edits: (ids of the draft, ids of the output, score), each at most ``width`` − 2 ids; scores must differ."""
        self._draft, self._length = _padded([draft for draft, _, _ in edits], width)
        self._output, self._output_length = _padded([output for _, output, _ in edits], width)
        score = torch.tensor([score for _, _, score in edits], dtype=torch.float64)
        self._score = ((score - score.mean()) / score.std()).float()
        self._size, self._rank, self._world, self._seed = batch_size, data_rank, data_world, seed

    @classmethod
    def of_run(cls, run: RunConfig, file: Path, tokenizer: Tokenizer) -> ScoredTexts:
        """This data-parallel rank's batches of a run."""
        return cls(
            read_scores(file, tokenizer, run.model.max_length),
            width=run.model.max_length,
            batch_size=run.batch.sequences // mesh.data_size(),
            data_rank=mesh.data_rank(),
            data_world=mesh.data_size(),
            seed=run.data.shuffle_seed,
        )

    def at(self, number: int) -> ScoredBatch:
        """This rank's part of the global batch ``number`` ≥ 0."""
        first = (number * self._world + self._rank) * self._size
        place = torch.arange(first, first + self._size)
        row = torch.stack([self._row(index) for index in place.tolist()])
        return ScoredBatch(
            self._draft[row],
            self._length[row],
            noise.mix(place + (self._seed << 40)),
            self._output[row],
            self._output_length[row],
            self._score[row],
        )

    def _row(self, index: int) -> Tensor:
        """Which edit is the ``index``-th of all that are handed out."""
        epoch, place = divmod(index, len(self._score))
        order = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        return torch.randperm(len(self._score), generator=order)[place]


def _padded(texts: Sequence[Sequence[int]], width: int) -> tuple[Tensor, Tensor]:
    """[N, T] ids between BOS and EOS, and lengths [N]."""
    rows = [[BOS_ID, *ids, EOS_ID] for ids in texts]
    assert max(map(len, rows)) <= width
    tokens = [row + [PAD_ID] * (width - len(row)) for row in rows]
    return torch.tensor(tokens), torch.tensor([len(row) for row in rows])
