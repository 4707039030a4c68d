import pydoc_data.topics

import pytest
import torch
from rapidfuzz.distance import OSA

from data_pipeline.vocabulary import train
from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer
from dualmask.core.typos import SHORTEST, typo_table


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Real pieces: from the language reference of the running Python."""
    lines = [" ".join(line.split()) for topic in pydoc_data.topics.topics.values() for line in topic.split("\n\n")]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train(iter(lines[:1500]), 1000))
    return Tokenizer(path)


@pytest.fixture(scope="module")
def table(tokenizer):
    return typo_table(tokenizer)


def variants(table, index):
    return [[int(x) for x in row if x >= 0] for row in table[index]]


def has_typos(table):
    return [index for index in range(len(table)) if table[index, 0, 0] >= 0]


def test_every_variant_is_one_mistake_away(tokenizer, table):
    for index in has_typos(table):
        for ids in variants(table, index):
            wrong, right = tokenizer.decode(ids), tokenizer.piece(index)
            assert OSA.distance(wrong, right) == 1
            assert wrong.startswith(" ") == right.startswith(" ")


def test_long_words_have_typos_and_nothing_else_has(tokenizer, table):
    with_typos = set(has_typos(table))
    for index in range(tokenizer.vocab_size):
        word = tokenizer.piece(index).removeprefix(" ")
        if index in SPECIAL_IDS or len(word) < SHORTEST or not word.isalpha():
            assert index not in with_typos
            assert (table[index] == -1).all()
    assert len(with_typos) > 300


def test_rows_are_ids_with_padding_behind(tokenizer, table):
    assert table.shape == (tokenizer.vocab_size, 4, 4)
    real = table >= 0
    assert not (real[..., 1:] & ~real[..., :-1]).any()
    assert (table < tokenizer.vocab_size).all()
    assert not torch.isin(table[real], torch.tensor(sorted(SPECIAL_IDS))).any()
    some = real.any(2)
    assert torch.equal(some.all(1), some.any(1))  # any variant may be drawn


def test_variants_differ_where_there_are_enough(tokenizer, table):
    different = [len({tuple(ids) for ids in variants(table, index)}) for index in has_typos(table)]
    assert sum(number == 4 for number in different) / len(different) > 0.5


def test_in_a_text_the_misspelt_word_stands_in_its_place(tokenizer, table):
    ids = tokenizer.encode("  The following function returns a new object.")
    spelt = 0
    for position, index in enumerate(ids):
        for wrong in variants(table, index) if table[index, 0, 0] >= 0 else []:
            text = tokenizer.decode(ids[:position] + wrong + ids[position + 1 :])
            expected = (
                tokenizer.decode(ids[:position]) + tokenizer.decode(wrong) + tokenizer.decode(ids[position + 1 :])
            )
            assert text == expected != tokenizer.decode(ids)
            spelt += 1
    assert spelt >= 12


def test_the_seed_decides(tokenizer, table):
    assert torch.equal(typo_table(tokenizer), table)
    assert not torch.equal(typo_table(tokenizer, seed=1), table)
    assert typo_table(tokenizer, variants=2, pieces=3).shape == (tokenizer.vocab_size, 2, 3)
