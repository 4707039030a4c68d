"""Known words become their companions where the filler is sure of one."""

import pytest
import torch
from scripted import Scripted

from dualmask.core.confusions import companion_table
from dualmask.core.lexicon import read_lexicon
from dualmask.core.tokenizer import MASK_ID
from dualmask.core.words import WordList
from dualmask.families.edit.evaluate.search import _ReadOnce
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.known_words import KnownWords
from dualmask.families.edit.infer.operating_point import OperatingPoint
from dualmask.families.edit.infer.request import Request
from dualmask.families.edit.infer.windows import STRIDE, WindowedModel
from dualmask.families.edit.infer.wording import DOUBT
from dualmask.nn.parallel import mesh

WORDS = WordList(["there", "is", "are", "was", "were", "two", "names", "in", "on", "this", "these", "the", "a", "name"])
NATS = 4.0


def doubt(tokens):
    return torch.full(tokens.shape, 2 * DOUBT)


class Liking(Scripted):
    """Would like to write these pieces, whatever the place; keeps what it was asked with."""

    def __init__(self, vocab_size, liked):
        super().__init__(vocab_size, wrong=doubt, max_length=64)
        self.liked, self.asked = liked, []

    def fill(self, tokens, length, slot, replaced=None):
        self.asked.append((tokens, replaced))
        logits = torch.zeros(len(slot), self.vocab_size)
        logits[:, self.liked] = NATS
        return logits


@pytest.fixture(scope="module", autouse=True)
def alone():
    mesh.single_process()


@pytest.fixture(scope="module")
def mend(english_tokenizer):
    tokenizer = english_tokenizer

    def mend(text, liked, mode="auto", words=WORDS, locked=(), **point):
        model = Liking(tokenizer.vocab_size, [tokenizer.encode(word)[0] for word in liked])
        engine = Engine(
            model, read_lexicon(tokenizer), known=KnownWords(tokenizer, words), point=OperatingPoint(**point)
        )
        request = Request(tokenizer.encode(text), mode, locked=locked)
        result = engine.run([request])[0]
        return tokenizer.decode(result.ids)

    return mend


def test_another_form_is_written_where_the_filler_is_sure_of_it(mend):
    text = "There is two names."
    assert mend(text, [" are"], wording_threshold=0.8) == "There are two names."
    assert mend(text, [" are"], wording_threshold=0.99) == text
    assert mend(text, [" are"]) == text, "unless it is asked for, nothing is tried"


def test_words_that_fit_as_well_stay(mend):
    text = "There is two names."
    assert mend(text, [" are", " is"], wording_threshold=0.6) == text


def test_only_companions_are_written(mend):
    text = "There is two names."
    assert mend(text, [" function"], wording_threshold=0.2) == text


def test_locked_words_and_texts_that_are_not_mended_stay(mend, english_tokenizer):
    text = "There is two names."
    assert mend(text, [" are"], mode="generate", wording_threshold=0.8) == text
    locked = [(0, len(english_tokenizer.encode(text)))]
    assert mend(text, [" are"], locked=locked, wording_threshold=0.8) == text


def test_the_filler_is_asked_of_doubted_words_and_their_neighbours_alone(english_tokenizer):
    tokenizer = english_tokenizer
    text = " there is the name on the list of names in this list"
    be = tokenizer.encode(" is")[0]
    model = Liking(tokenizer.vocab_size, [tokenizer.encode(" are")[0]])
    model.wrong = lambda tokens: torch.where(tokens == be, 2 * DOUBT, DOUBT / 2)
    known, point = KnownWords(tokenizer, WORDS), OperatingPoint(wording_threshold=0.8)
    engine = Engine(model, read_lexicon(tokenizer), known=known, point=point)
    engine.run([Request(tokenizer.encode(text), "auto", rounds=1)])
    read, told = (torch.cat(planes) for planes in zip(*model.asked[:1], strict=True))
    place = 1 + tokenizer.encode(text).index(be)
    masks = [(row == MASK_ID).nonzero().squeeze(1).tolist() for row in read]
    assert masks == [[place], [place - 1, place], [place, place + 1]]
    assert (told[0, place, :2] == be).all()
    assert (told[1:] == -1).all()


def test_words_that_are_not_known_are_not_written(mend):
    words = WordList(["there", "is", "two", "names"])
    assert mend("There is two names.", [" are"], words=words, wording_threshold=0.8) == "There is two names."


def test_of_two_neighbours_the_first_is_worded_anew(mend):
    assert mend("There is in names", [" are", " on"], wording_threshold=0.8) == "There are in names"


def test_each_word_is_masked_once_and_told(english_tokenizer):
    tokenizer = english_tokenizer
    model = Liking(tokenizer.vocab_size, tokenizer.encode(" are"))
    ids = tokenizer.encode(" is the value of a name in this list and was it the same value of these names")
    tokens = torch.tensor([[1, *ids, 2]])
    asked = torch.zeros_like(tokens, dtype=torch.bool)
    asked[0, 1:-1] = True
    others = companion_table(tokenizer).ids[..., 0]
    windowed = WindowedModel(model, read_lexicon(tokenizer))
    said = windowed.reconsider(tokens, torch.tensor([tokens.shape[1]]), asked, torch.zeros_like(asked), others)
    found, prob = said.ids, said.prob
    read = torch.cat([shown for shown, _ in model.asked])
    told = torch.cat([known for _, known in model.asked])
    masks = read == MASK_ID
    assert masks.sum(0).tolist() == asked[0].long().tolist()
    assert (told[masks][:, 0] == tokens.expand_as(read)[masks]).all()
    assert all(b - a >= STRIDE for row in masks for a, b in zip(row.nonzero()[:-1], row.nonzero()[1:], strict=True))
    be = tokenizer.encode(" is")[0]
    place = tokens[0].tolist().index(be)
    assert found[0, place] == tokenizer.encode(" are")[0]
    assert prob[0, place] == pytest.approx(1 / (1 + torch.e**-NATS), rel=1e-4)
    assert (prob[0, ~asked[0]] == 0).all()


@pytest.fixture(scope="module")
def reorder(english_tokenizer):
    """Mends with a filler that finds a token the more probable the earlier its id, wherever it stands."""
    tokenizer = english_tokenizer

    class Ordering(Scripted):
        def fill(self, tokens, length, slot, replaced=None):
            assert replaced is None, "it is not told"
            place = torch.arange(len(slot)) % 2  # both of a pair are asked about, from the left
            early = torch.arange(self.vocab_size) < min(self.pair) + 1
            return NATS * torch.where(place[:, None] == 0, early, ~early).float()

    def mend(text, **point):
        model = Ordering(tokenizer.vocab_size, wrong=doubt, max_length=64)
        model.pair = [tokenizer.encode(" in")[0], tokenizer.encode(" the")[0]]
        point = OperatingPoint(**point)
        engine = Engine(model, read_lexicon(tokenizer), known=Known(tokenizer), point=point)
        return tokenizer.decode(engine.run([Request(tokenizer.encode(text), "auto")])[0].ids)

    class Known(KnownWords):
        def __init__(self, tokenizer):
            super().__init__(tokenizer, WORDS)
            nothing = torch.full_like(self.reword._table.ids, -1)
            self.reword._table = type(self.reword._table)(**{**vars(self.reword._table), "ids": nothing})

    return mend


def test_two_neighbours_change_places_where_the_filler_is_sure_of_it(reorder, english_tokenizer):
    first, second = sorted((" in", " the"), key=lambda word: english_tokenizer.encode(word)[0])
    wrong, right = f"names{second}{first}", f"names{first}{second}"
    assert reorder(wrong, wording_threshold=0.99) == right
    assert reorder(right, wording_threshold=0.99) == right
    assert reorder(wrong, wording_threshold=0.9999) == wrong
    assert reorder(wrong) == wrong


def test_log_probabilities_are_of_each_token_masked_once_and_not_told(english_tokenizer):
    tokenizer = english_tokenizer
    liked = tokenizer.encode(" is")
    model = Liking(tokenizer.vocab_size, liked)
    texts = [tokenizer.encode(" this is the value of a name in the list that is bound"), tokenizer.encode(" it is")]
    width = max(map(len, texts)) + 2
    tokens = torch.tensor([[1, *ids, 2] + [0] * (width - 2 - len(ids)) for ids in texts])
    length = torch.tensor([len(ids) + 2 for ids in texts])
    windowed = WindowedModel(model, read_lexicon(tokenizer))
    inner = (torch.arange(width) > 0) & (torch.arange(width) < length[:, None] - 1)
    nats = windowed.log_probs(tokens, length, inner)
    assert all(told is None for _, told in model.asked)
    likely, other = NATS, 0.0
    normaliser = torch.log(torch.tensor(torch.e**NATS + tokenizer.vocab_size - 1.0))
    expected = torch.where(tokens == liked[0], likely, other) - normaliser
    torch.testing.assert_close(nats, torch.where(inner, expected, 0.0))
    remembered = _ReadOnce(windowed)
    for rows in ([0, 1], [1], [1, 0]):
        torch.testing.assert_close(remembered.log_probs(tokens[rows], length[rows], inner[rows]), nats[rows])
    number = len(model.asked)
    remembered.log_probs(tokens, length, inner)
    assert len(model.asked) == number


def test_companions_are_words_of_one_piece_each_once(english_tokenizer):
    table = companion_table(english_tokenizer)
    piece = {english_tokenizer.piece(index): index for index in range(9, english_tokenizer.vocab_size)}
    others = [number for number in table.ids[piece[" is"], :, 0].tolist() if number >= 0]
    assert piece[" are"] in others
    assert piece[" is"] not in others
    assert len(set(others)) == len(others)
    assert (table.ids[piece["."]] == -1).all(), "marks have none"
