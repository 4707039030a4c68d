"""Wrong texts: by whom they are made, and that they depend on nothing but the key of a text and the step."""

from __future__ import annotations

import pydoc_data.topics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from dualmask.config.corruption import KINDS, CorruptionConfig
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import EOS_ID, Tokenizer
from dualmask.evaluation import texts
from dualmask.ops.corruption import corrupt
from dualmask.ops.mistakes import make_mistakes

LINES = [" ".join(text.split()) for text in sorted(pydoc_data.topics.topics.values())]


@pytest.fixture(scope="module")
def errors(english_tokenizer: Tokenizer) -> ErrorTables:
    return ErrorTables.of(english_tokenizer, config(1.0).needs)


@pytest.fixture(scope="module")
def batch(english_tokenizer: Tokenizer) -> Batch:
    """With room to grow."""
    (batch,) = texts.batches(LINES, english_tokenizer, 64, limit=96, shortest=40)
    return replace(batch, tokens=pad(batch.tokens, (0, 64)))


def config(share: float, **tokens: float) -> CorruptionConfig:
    """Errors of words in a share of the texts; the other ones have tokens that are doubled."""
    weights = dict.fromkeys(KINDS, 0.0) | (tokens or {"double": 1.0})
    natural = {"share": share, "rate_low": 0.1, "rate_high": 0.2}
    return CorruptionConfig(rate_low=0.2, rate_high=0.2, shuffle_share=0.0, natural=natural, **weights)


def every(batch: Batch) -> torch.Tensor:
    return torch.ones_like(batch.length, dtype=torch.bool)


def test_without_a_share_they_are_those_of_tokens(batch: Batch, errors: ErrorTables) -> None:
    made = make_mistakes(batch, every(batch), 3, config(0.0), errors)
    expected = corrupt(batch.tokens, batch.length, batch.key, 3, config(0.0), errors)
    assert all(map(torch.equal, made, expected))
    without = make_mistakes(batch, every(batch), 3, config(1.0), ErrorTables())
    assert all(map(torch.equal, without, expected))  # nobody writes them


def test_a_share_of_the_texts_has_errors_of_words(batch: Batch, errors: ErrorTables) -> None:
    tokens, _ = make_mistakes(batch, every(batch), 3, config(0.5), errors)
    by_token, _ = corrupt(batch.tokens, batch.length, batch.key, 3, config(0.5), errors)
    by_word, _ = make_mistakes(batch, every(batch), 3, config(1.0), errors)
    of_tokens, of_words = (tokens == by_token).all(1), (tokens == by_word).all(1)
    assert (of_tokens | of_words).all()
    assert 0.35 < of_words.float().mean() < 0.65


def test_texts_of_words_alone_need_no_other_kind(batch: Batch, errors: ErrorTables) -> None:
    alone = CorruptionConfig(natural={"share": 1.0}, **dict.fromkeys(KINDS, 0.0))
    made, _ = make_mistakes(batch, every(batch), 0, alone, errors)
    assert (made != batch.tokens).any(1).float().mean() > 0.7
    with pytest.raises(ValueError, match="are all 0"):
        CorruptionConfig(natural={"share": 0.9}, **dict.fromkeys(KINDS, 0.0))


def test_other_texts_and_the_targets_stay(batch: Batch, errors: ErrorTables) -> None:
    before = batch.tokens.clone(), batch.length.clone()
    where = torch.arange(len(batch.length)) % 3 == 0
    tokens, length = make_mistakes(batch, where, 1, config(0.7), errors)
    assert torch.equal(batch.tokens, before[0])
    assert torch.equal(batch.length, before[1])
    assert torch.equal(tokens[~where], batch.tokens[~where])
    assert torch.equal(length[~where], batch.length[~where])
    assert (tokens[where] != batch.tokens[where]).any(1).float().mean() > 0.9


def test_rows_are_whole(batch: Batch, errors: ErrorTables) -> None:
    tokens, length = make_mistakes(batch, every(batch), 2, config(1.0), errors)
    assert tokens.shape == batch.tokens.shape
    assert tokens.dtype == length.dtype == torch.int64
    made = Batch(tokens, length, batch.key)
    assert torch.equal(tokens[:, 0], batch.tokens[:, 0])
    assert (tokens.gather(1, length[:, None] - 1) == EOS_ID).all()
    assert (tokens[~made.present] == 0).all()


def test_a_text_is_the_same_in_any_batch_and_in_a_new_process(
    batch: Batch, errors: ErrorTables, english_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Nothing that was remembered of other texts, and no state of a generator, plays a part."""
    whole, length = make_mistakes(batch, every(batch), 5, config(0.5), errors)
    (tmp_path / "tokenizer.model").write_bytes(english_tokenizer.model_bytes)
    fresh = ErrorTables.of(Tokenizer(tmp_path / "tokenizer.model"), config(0.5).needs)
    assert fresh.natural is not errors.natural
    for rows in (slice(0, 7), slice(7, 8), slice(50, 96)):
        part = batch.rows(rows)
        for tables in (errors, fresh):
            tokens, size = make_mistakes(part, every(part), 5, config(0.5), tables)
            assert torch.equal(tokens, whole[rows])
            assert torch.equal(size, length[rows])
    later, _ = make_mistakes(batch, every(batch), 6, config(0.5), errors)
    other, _ = make_mistakes(replace(batch, key=batch.key + 1), every(batch), 5, config(0.5), errors)
    assert (later != whole).any(1).float().mean() > 0.9
    assert (other != whole).any(1).float().mean() > 0.9
