"""Natural errors of the pieces of a real small vocabulary."""

import pydoc_data.topics

import pytest
import torch

from data_pipeline.vocabulary import train
from dualmask.config.corruption import CorruptionConfig
from dualmask.core import english
from dualmask.core.confusions import SIGNS, SUFFIXES, confusion_table
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import BOS_ID, EOS_ID, SPECIAL_IDS, Tokenizer
from dualmask.ops.corruption import KINDS, corrupt

LINES = [" ".join(line.split()) for topic in pydoc_data.topics.topics.values() for line in topic.split("\n\n")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train(iter(LINES), 2500))
    return Tokenizer(path)


@pytest.fixture(scope="module")
def table(tokenizer):
    return confusion_table(tokenizer)


@pytest.fixture(scope="module")
def errors(tokenizer, table):
    """The wrong texts of each piece that has some; None for a variant that is none."""

    def text(ids, count):
        return None if count < 0 else tokenizer.decode(ids[:count].tolist())

    every = {
        tokenizer.piece(index): [text(*variant) for variant in zip(table.ids[index], table.count[index], strict=True)]
        for index in range(tokenizer.vocab_size)
    }
    return {piece: texts for piece, texts in every.items() if any(text is not None for text in texts)}


def test_rows_are_ids_with_padding_behind(tokenizer, table):
    assert table.ids.shape == (tokenizer.vocab_size, 12, 4)
    assert torch.equal((table.ids >= 0).sum(2), table.count.clamp_min(0))
    assert not ((table.ids[..., 1:] >= 0) & (table.ids[..., :-1] < 0)).any()
    assert (table.ids < tokenizer.vocab_size).all()
    assert not torch.isin(table.ids[table.ids >= 0], torch.tensor(sorted(SPECIAL_IDS))).any()
    assert (table.count[sorted(SPECIAL_IDS)] == -1).all()


def test_a_wrong_text_differs_and_keeps_its_leading_space(errors):
    assert len(errors) > 250
    for piece, texts in errors.items():
        for text in set(texts) - {None, ""}:
            assert text != piece
            assert text.startswith(" ") == piece.startswith(" ")


def test_only_what_writers_leave_out_may_be_left_out(errors):
    left_out = {piece for piece, texts in errors.items() if "" in texts}
    assert {" the", " a", " of", " to", " is", " it", ",", ".", "s"} <= left_out
    assert left_out <= {f" {word}" for word in english.OMITTED} | set(SIGNS) | set(SUFFIXES)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (" the", {" a", " an", "", " The"}),
        ("The", {"A", "An"}),
        (" and", {" or", " but", "", " And"}),
        (" value", {" values", " Value"}),
        (" values", {" value"}),
        (" function", {" functions"}),
        (" return", {" returns", " returned", " returning"}),
        (" called", {" call", " calls", " calling"}),
        (" can", {" could", " may", "", " Can"}),
        (" there", {" their", " they're", " here"}),
        (" passed", {" past", " passing"}),
        (" affect", {" effect", " affects"}),
        (" entries", {" entry"}),
        (" go", {" went", " goes"}),
        (" different", {" differently"}),
        (",", {"", "."}),
    ],
)
def test_examples(piece, expected, errors):
    assert expected <= set(errors[piece])


@pytest.mark.parametrize(
    ("piece", "unexpected"),
    [
        (" the", {" thes", " thed"}),
        (" which", {" whiches", " a which"}),
        (" different", {" differents", " a different"}),
        (" function", {" functioned", " functionly"}),
        (" this", {" thising", " thi"}),
    ],
)
def test_nonsense_is_avoided(piece, unexpected, errors):
    assert not unexpected & set(errors[piece])


def test_a_word_whose_errors_are_all_rare_is_mostly_left_alone(errors):
    assert set(errors[" Python"]) == {" python", None}
    names = [texts for piece, texts in errors.items() if None in texts]
    assert all(texts.count(None) >= 6 for texts in names)


def everything_confused(tokenizer, table, text, keys=200):
    """The texts that come of ``text`` if every token that may be is confused."""
    ids = [BOS_ID, *tokenizer.encode(text), EOS_ID]
    width = 2 * len(ids)
    tokens = torch.tensor([ids + [0] * (width - len(ids))]).expand(keys, -1).contiguous()
    weights = {kind: float(kind == "confuse") for kind in KINDS}
    config = CorruptionConfig(rate_low=1, rate_high=1, shuffle_share=0, **weights)
    length = torch.full((keys,), len(ids))
    wrong, length = corrupt(tokens, length, torch.arange(keys), 0, config, ErrorTables(confusions=table))
    return {tokenizer.decode(row[:n]) for row, n in zip(wrong.tolist(), length.tolist(), strict=True)}


def test_words_are_really_left_out(tokenizer, table):
    found = everything_confused(tokenizer, table, " the")
    assert found == {"", " a", " an", " The"}


def test_parts_of_words_and_of_names_stay_whole(tokenizer, table):
    """ " in" of an unknown word, and of a name of a program, is no preposition."""
    for text in (" inqqzx", " in_qqzx", " is.qqzx"):
        pieces = [tokenizer.piece(index) for index in tokenizer.encode(text)]
        assert pieces[0] in (" in", " is")
        starts = {found[:3] for found in everything_confused(tokenizer, table, text)}
        assert starts == {text[:3]} or text[3] == "."


def test_the_seed_decides(tokenizer, table):
    assert torch.equal(confusion_table(tokenizer).ids, table.ids)
    assert not torch.equal(confusion_table(tokenizer, seed=1).ids, table.ids)
    assert confusion_table(tokenizer, variants=3, pieces=2).ids.shape == (tokenizer.vocab_size, 3, 2)


def test_only_the_tables_that_are_asked_for_are_made(tokenizer, table):
    assert ErrorTables.of(tokenizer, ["drop"]) == ErrorTables()
    both = ErrorTables.of(tokenizer, KINDS).to(torch.device("cpu"))
    assert both.typos is not None
    assert torch.equal(both.confusions.ids, table.ids)
