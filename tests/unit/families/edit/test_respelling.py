"""Unknown words become known ones near them, chosen by what inserter and filler say."""

import pytest
import torch
from scripted import Scripted
from torch import nn

from dualmask.core.lexicon import read_lexicon
from dualmask.core.words import WordList
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.known_words import KnownWords
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.request import Request
from dualmask.families.edit.infer.spelling import Respelling, Suspect, Written
from dualmask.families.edit.outputs import InserterOut
from dualmask.nn.parallel import mesh
from dualmask.ops.gaps import gap_present

WORDS = WordList(["the", "a", "house", "horse", "mouse", "receive", "is", "small"])


class Opinion(Scripted):
    """Would like to write these pieces, whatever the place, and so many of them."""

    def __init__(self, vocab_size, wrong, liked, pieces):
        super().__init__(vocab_size, wrong=wrong, max_length=64)
        self.liked, self.pieces = liked, pieces

    def count(self, skeleton, x_BTD=None, told=None):
        gone = torch.zeros_like(skeleton.tokens[:, 1:]) if told is None else told.number.clamp_min(0)
        number = torch.where(gone > 0, self.pieces, 0)
        logits = 8.0 * nn.functional.one_hot(number, self.config.max_gap_count + 1).float()
        return InserterOut(logits, gap_present(skeleton.length, skeleton.tokens.shape[1]))

    def fill(self, tokens, length, slot, replaced=None):
        logits = torch.zeros(len(slot), self.vocab_size)
        logits[:, self.liked] = 8.0
        return logits


@pytest.fixture(scope="module", autouse=True)
def alone():
    mesh.single_process()


@pytest.fixture(scope="module")
def mend(english_tokenizer):
    tokenizer = english_tokenizer

    def mend(text, liked="", doubt=0.4, locked=(), mode="auto", words=WORDS, **point):
        liked = tokenizer.encode(liked)
        model = Opinion(tokenizer.vocab_size, lambda tokens: torch.full(tokens.shape, doubt), liked, max(len(liked), 1))
        known = KnownWords(tokenizer, words)
        engine = Engine(model, read_lexicon(tokenizer), known=known, point=OperatingPoint(**point))
        request = Request(tokenizer.encode(text), mode, rounds=2, locked=locked)
        return tokenizer.decode(engine.run([request])[0].ids)

    return mend


def test_the_model_chooses_among_the_near_words(mend):
    assert mend("the hoxse is small", " horse", spelling_threshold=0.3) == "the horse is small"
    assert mend("the hoxse is small", " house", spelling_threshold=0.3) == "the house is small"


def test_known_words_stay(mend):
    assert mend("the house is small", " mouse", spelling_threshold=0.3) == "the house is small"


def test_words_that_the_picker_does_not_doubt_stay(mend):
    assert mend("the hpuse is small", " horse", spelling_threshold=0.5) == "the hpuse is small"
    assert mend("the hpuse is small", " horse") == "the hpuse is small", "unless it is asked for, nothing is tried"


def test_names_and_locked_words_stay(mend, english_tokenizer):
    assert mend("the Hpuse is small", " Horse", spelling_threshold=0.3) == "the Hpuse is small"
    locked = [(0, len(english_tokenizer.encode("the hpuse is small")))]
    assert mend("the hpuse is small", " horse", locked=locked, spelling_threshold=0.3) == "the hpuse is small"


def test_the_first_word_of_a_sentence_is_no_name(mend):
    assert (
        mend("Smal is the house. Recieve the horse.", spelling_threshold=0.3)
        == "Small is the house. Receive the horse."
    )


def test_an_unsure_choice_is_not_made(mend):
    asked = {"words": WordList(["the", "house", "horse", "is", "small"]), "spelling_threshold": 0.3}
    assert mend("the hoxse is small", " h", fill_threshold=0.4, **asked) == "the house is small"
    assert mend("the hoxse is small", " h", fill_threshold=0.6, **asked) == "the hoxse is small"


def test_two_unknown_words_side_by_side_take_two_rounds(mend):
    assert mend("teh smal house", spelling_threshold=0.3) == "the small house"


def test_nothing_is_respelt_where_no_mistake_is_looked_for(mend):
    assert mend("the hpuse is small", " horse", mode="generate", spelling_threshold=0.3) == "the hpuse is small"


def test_what_else_was_decided_around_a_suspect_is_undone():
    deleted = torch.tensor([[False, True, True, True, False, True, False]])
    written = Written(deleted.clone(), {(0, 0): [(300, 0.5)], (0, 4): [(301, 0.25)]})
    written.replace(Suspect(0, 2, 3, ()), [(310, 0.75), (311, 1.0)])
    assert written.deleted.tolist() == [[False, False, True, False, False, True, False]]
    assert written.behind == {(0, 1): [(310, 0.75), (311, 1.0)], (0, 4): [(301, 0.25)]}


def test_words_that_share_a_token_with_something_else_are_left(english_tokenizer):
    respelling = Respelling(english_tokenizer, WORDS)
    assert list(respelling._unknown("a hpuse", [0, 1, 7])) == [((2, 3), " hpuse")]
    assert list(respelling._unknown("a hpuse", [0, 1, 2, 7])) == [((2, 4), " hpuse")]
    assert list(respelling._unknown("(hpuse", [0, 1, 6])) == [((2, 3), "hpuse")]
    assert list(respelling._unknown("(hpuse", [0, 3, 6])) == []
