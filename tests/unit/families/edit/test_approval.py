"""A second look at a round's edits: what is not approved is as if it had never been decided."""

import random

import pytest
import torch

from dualmask.core.batch import present
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.core.words import WordList
from dualmask.families.edit.infer.approval import Replayed, WordCheck, edited, gains, keeps_pairs, sureness, unchanged
from dualmask.families.edit.round import play_round

A, B, C, D = range(300, 304)


class Told:
    """Rules of a round that are written down: positions that go, masks behind kept tokens, ids that are written."""

    def __init__(self, deleted, count, written):
        self.deleted, self.counts, self.written = deleted, count, written

    def delete(self):
        return self.deleted

    def count(self, remainder):
        return self.counts

    def fill(self, opened):
        out = opened.masked.tokens.clone()
        out[opened.masked.is_mask] = self.written
        return out


def batch_of(texts):
    width = max(map(len, texts)) + 2
    rows = [[BOS_ID, *ids, EOS_ID] for ids in texts]
    tokens = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


def played(texts, deleted, count, written):
    """deleted: positions (BOS is 0) of each text; count: masks behind the n-th kept token of each."""
    tokens, length = batch_of(texts)
    gone = torch.zeros_like(tokens, dtype=torch.bool)
    counts = torch.zeros(len(texts), tokens.shape[1] - 1, dtype=torch.long)
    for row, (places, masks) in enumerate(zip(deleted, count, strict=True)):
        gone[row, places] = True
        for kept, number in masks.items():
            counts[row, kept] = number
    return tokens, length, play_round(tokens, length, Told(gone, counts, torch.tensor(written)))


def ids(result, row):
    return result.tokens[row, 1 : int(result.length[row]) - 1].tolist()


def random_round(chance):
    texts = [[chance.randrange(300, 320) for _ in range(chance.randrange(1, 12))] for _ in range(4)]
    deleted = [[n + 1 for n in range(len(text)) if chance.random() < 0.3] for text in texts]
    kept = [len(text) - len(gone) + 1 for text, gone in zip(texts, deleted, strict=True)]
    count = [{n: chance.randrange(3) for n in range(number)} for number in kept]
    total = sum(number for masks in count for number in masks.values())
    return texts, deleted, count, [chance.randrange(400, 500) for _ in range(total)]


def test_approving_some_edits_is_the_round_with_these_alone():
    chance = random.Random(1)
    for _ in range(100):
        tokens, length, result = played(*random_round(chance))
        approved = (
            torch.rand(edited(result).shape, generator=torch.Generator().manual_seed(chance.randrange(999))) < 0.5
        )
        again = play_round(tokens, length, Replayed(result, approved))
        for row in range(len(tokens)):
            expected, written = [], iter(result.tokens[row][result.is_mask[row]].tolist())
            source = result.opened.remainder.source[row].tolist()
            for gap in range(int(result.opened.remainder.skeleton.length[row]) - 1):
                new = [next(written) for _ in range(int(result.count[row, gap]))]
                old = tokens[row, source[gap] + 1 : source[gap + 1]].tolist()
                expected += [int(tokens[row, source[gap]]), *(new if approved[row, gap] else old)]
            assert ids(again, row) == expected[1:]


def test_all_approved_is_the_round_itself_and_none_the_draft():
    tokens, length, result = played(*random_round(random.Random(2)))
    whole = play_round(tokens, length, Replayed(result, torch.ones_like(edited(result))))
    assert torch.equal(whole.tokens, result.tokens)
    none = play_round(tokens, length, Replayed(result, torch.zeros_like(edited(result))))
    assert torch.equal(none.tokens[:, : tokens.shape[1]], tokens)
    assert not none.changed.any()


def test_writing_what_was_deleted_is_no_edit():
    tokens, _, result = played([[A, B, C], [A, B, C]], [[2], [2]], [{1: 1}, {1: 1}], [B, D])
    assert edited(result).sum(1).tolist() == [1, 1]
    assert unchanged(result, tokens).sum(1).tolist() == [1, 0]


def test_a_mark_that_comes_in_pairs_is_neither_written_nor_deleted_alone():
    tokens, _, result = played([[A, B], [A, B], [A, B]], [[2], [2], [2]], [{1: 1}, {1: 1}, {1: 2}], [C, D, D, C])
    paired = torch.zeros(1000, dtype=torch.long)
    paired[[B, D]] = 1
    assert keeps_pairs(result, tokens, paired)[:, 1].tolist() == [False, True, True]  # gone, exchanged, one of two
    assert keeps_pairs(result, tokens, paired * 0).all()


def test_sureness_is_the_product_over_what_an_edit_writes():
    _, _, result = played([[A, B, C]], [[2]], [{1: 2}], [D, D])
    confidence = torch.where(result.is_mask, 0.5, 1.0)
    assert sureness(result, confidence)[0].tolist() == pytest.approx([1, 0.25, 1, 1])


def test_a_gain_compares_the_log_probabilities_around_each_edit():
    tokens, length, result = played([[A, B, C]], [[2]], [{1: 1}], [D])
    before = torch.where(tokens == B, -4.0, -1.0)
    better, worse = torch.full(result.tokens.shape, -1.0), torch.where(result.tokens == D, -7.0, -1.0)
    assert gains(result, before, better)[0, 1] == 3
    assert gains(result, before, worse)[0, 1] == -3
    assert present(length, tokens.shape[1]).all()


def test_a_gain_knows_nothing_of_padding_and_of_the_other_texts():
    texts, deleted, count, written = random_round(random.Random(3))
    _, _, result = played(texts, deleted, count, written)
    score = {token: (token % 7) - 3.0 for token in range(500)}
    table = torch.tensor([score[token] for token in range(500)])
    tokens, _ = batch_of(texts)
    all_gains = gains(result, table[tokens], table[result.tokens])
    first = 0
    for row, text in enumerate(texts):
        number = sum(count[row].values())
        alone_tokens, _, alone = played([text], [deleted[row]], [count[row]], written[first : first + number])
        first += number
        gaps = int(alone.opened.remainder.skeleton.length[0]) - 1
        own = gains(alone, table[alone_tokens], table[alone.tokens])
        assert torch.allclose(own[0, :gaps], all_gains[row, :gaps])


def test_edits_that_write_unknown_words_are_refused(writer):
    tokenizer = writer.tokenizer
    draft = tokenizer.encode("the name of the value")
    good, bad = tokenizer.encode(" object"), tokenizer.encode(" objekt")
    check = WordCheck(tokenizer, WordList(["object", "name"]))
    place = len(tokenizer.encode("the name of the"))
    gone = list(range(place + 1, len(draft) + 1))
    for written, approved in ((good, True), (bad, False)):
        tokens, length, result = played([draft], [gone], [{place: len(written)}], written)
        assert bool(check(result, tokens, length).all()) == approved
