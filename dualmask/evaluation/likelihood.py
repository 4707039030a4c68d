"""−log p of texts: exact by models that predict each token from those in front of it, a bound by others that have one;
bits per byte of documents."""

# N passages, D documents, M slots, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, PAD_ID, Tokenizer
from dualmask.evaluation import statistics
from dualmask.evaluation.continuation import TEXTS_AT_ONCE, parts
from dualmask.evaluation.statistics import Row
from dualmask.evaluation.texts import collate, sequences
from dualmask.families import registry
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.nn.token_losses import ScoredSlots


@dataclass(frozen=True)
class Passage:
    """What is read behind BOS, and the place of the first id that is judged; the others are given."""

    ids: Sequence[int]
    first: int = 0


@dataclass(frozen=True)
class Scorer:
    """A model that says how likely passages are. A passage's figures do not depend on the others of its batch, but for
    rounding."""

    next_tokens: Callable[[Batch], ScoredSlots]  # the exact loss of every token behind the first
    vocab_size: int
    device: torch.device
    at_once: int = TEXTS_AT_ONCE

    @classmethod
    def of(cls, model: Any, at_once: int = TEXTS_AT_ONCE) -> Scorer:
        """Raises ValueError for a model whose family has no exact likelihood."""
        family = model.config.family
        next_tokens = registry.find(family).load_runtime().next_tokens
        if next_tokens is None:
            raise ValueError(
                f"a model of the family {family} has no exact likelihood: it does not predict each token from those in "
                "front of it alone"
            )
        device = next(model.parameters()).device
        return cls(lambda batch: next_tokens(model, batch), model.vocab_size, device, at_once)

    def score(self, passages: Sequence[Passage]) -> np.ndarray:
        """[N, 3] of each passage's judged ids: −log p in nats, their number, and how many are the likeliest ones."""
        scores = [self._score(passages[part]) for part in parts(len(passages), self.at_once)]
        return np.concatenate([np.zeros((0, 3)), *scores])

    @torch.inference_mode()
    def _score(self, passages: Sequence[Passage]) -> np.ndarray:
        rows = [[BOS_ID, *passage.ids] for passage in passages]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows])
        length = torch.tensor([len(row) for row in rows])
        out = self.next_tokens(Batch(tokens, length, key=torch.zeros_like(length)).to(self.device))
        likeliest = whole_vocabulary(out.logits, self.vocab_size).argmax(-1) == out.target
        row, place = out.slot // width, out.slot % width  # at place t the loss of id t: BOS stands in front
        judged = place >= torch.tensor([passage.first for passage in passages], device=self.device)[row]
        columns = torch.stack([out.loss.double(), torch.ones_like(out.loss).double(), likeliest.double()], 1)
        sums = columns.new_zeros(len(rows), 3).index_add(0, row, columns * judged[:, None])
        return sums.cpu().numpy()


def windows(ids: Sequence[int], room: int) -> Iterator[Passage]:
    """A document in passages of at most ``room`` ids, each id judged once. As lm_eval cuts it: one behind the other,
    the last with as much in front of it as there is room for; but each begins with BOS, as in training."""
    for start in range(0, len(ids), room):
        end = min(start + room, len(ids))
        first = max(end - room, 0)
        yield Passage(ids[first:end], start - first)


def document_scores(scorer: Scorer, documents: Sequence[Sequence[int]], room: int) -> np.ndarray:
    """[D, 3]: the columns of ``Scorer.score``, each document's windows of ``room`` ids summed up."""
    cut = [(number, passage) for number, ids in enumerate(documents) for passage in windows(ids, room)]
    scores = np.zeros((len(documents), 3))
    np.add.at(scores, [number for number, _ in cut], scorer.score([passage for _, passage in cut]))
    return scores


@torch.inference_mode()
def document_bounds(
    model: Any, texts: Sequence[str], tokenizer: Tokenizer, draws: int, at_once: int = TEXTS_AT_ONCE
) -> np.ndarray:
    """[D] an upper bound of each document's −log p in nats: the mean of ``draws`` draws, of windows that know of each
    other nothing and of their ends all. Raises ValueError for a model whose family has none."""
    family, width = model.config.family, model.config.max_length
    bound = registry.find(family).load_runtime().bound
    if bound is None:
        raise ValueError(f"a model of the family {family} has no bound of a likelihood")
    cut = [(number, row) for number, text in enumerate(texts) for row in sequences([text], tokenizer, width, 1)]
    nats = np.zeros(len(texts))
    for part in parts(len(cut), at_once):
        owners, rows = zip(*cut[part], strict=True)
        batch = collate(rows, part.start, width).to(next(model.parameters()).device)
        for turn in range(draws):
            out = bound(model, batch, turn)
            losses = torch.zeros_like(batch.length, dtype=torch.double)
            losses.index_add_(0, out.slot // width, out.loss.double() * out.slot_weight)
            np.add.at(nats, list(owners), losses.cpu().numpy() / draws)
    return nats


def room_of(max_length: int) -> int:
    """Ids of a window: behind BOS, and the last one is only predicted, as EOS is in training."""
    return max_length - 1


def evaluate(scorer: Scorer, texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[Row]:
    """Bits per byte of UTF-8 and perplexity per token; intervals are over documents. The end of a text costs nothing,
    as in lm_eval."""
    scores = document_scores(scorer, tokenizer.encode_lines(texts), room_of(max_length))
    nats, tokens = scores[:, 0], scores[:, 1]
    size = [len(text.encode()) for text in texts]
    return [
        statistics.row("bits_per_byte", statistics.ratio, np.stack([nats / np.log(2), size], 1)),
        statistics.row("perplexity", statistics.exp_ratio, np.stack([nats, tokens], 1)),
    ]
