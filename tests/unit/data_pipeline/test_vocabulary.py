"""The tokenizer contract, on a model trained here: control symbols at their ids, newline alone, nothing lost."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipeline.documents import split_of
from data_pipeline.vocabulary import VocabularyError, find, sample_places, threshold, train
from dualmask.config.data import SplitConfig, TokenizerConfig
from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer


def lines() -> Iterator[str]:
    for text in topics.values():
        yield from text.split("\n")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    file.write_bytes(train(lines(), 800))
    return Tokenizer(file)


@given(st.text())
@example("[MASK] <bos> <pad> [PRED] <0x0A> \u2581 \u2581\u2581a \n\n\t\r\n \x00 é \U0001f600 ")
def test_decode_encode_is_identity(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not SPECIAL_IDS & set(ids)


def test_exact_size_and_newline_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 800
    (newline,) = tokenizer.encode("\n")
    assert tokenizer.encode("the end\nof it").count(newline) == 1
    assert len(tokenizer.encode("the statement")) <= 4


def test_training_is_deterministic() -> None:
    assert train(lines(), 400) == train(lines(), 400)


@pytest.mark.parametrize(("text", "size"), [("a few words only", 5000), ("", 400)])
def test_too_little_text(text: str, size: int) -> None:
    with pytest.raises(
        VocabularyError, match=rf"^tokenizer\.vocab_size={size} does not fit the text .*give more text$"
    ):
        train(iter([text]), size)


def test_a_model_that_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(b"nonsense")
    for name in ("x.model", "absent.model"):
        with pytest.raises(VocabularyError, match=rf"^tokenizer\.model=.*{name}: "):
            find(TokenizerConfig(model=tmp_path / name))


@pytest.mark.parametrize("wanted", [5e4, 2e5, 5e6])
def test_a_sample_has_the_size_that_is_asked_for(wanted: float) -> None:
    """Of 10 MB, also where its share is below that of the dev and test parts."""
    ids = [f"document {number}" for number in range(40_000)]
    sizes = np.random.default_rng(0).integers(1, 500, len(ids))
    places = sample_places(ids, 0)
    total: Counter[int] = Counter()
    for place, size in zip(places.tolist(), sizes.tolist(), strict=True):
        total[place] += size
    bound, is_whole = threshold(total, wanted)
    assert not is_whole
    assert abs(int(sizes[places < bound].sum()) / wanted - 1) < 0.05
    splits = {
        split_of(name, SplitConfig(dev=0.3, test=0.3), 0)
        for name, place in zip(ids, places, strict=True)
        if place < bound
    }
    assert len(splits) == 3


def test_a_sample_larger_than_the_text_is_the_text() -> None:
    assert threshold({3: 10, 7: 20}, 1e6) == (8, True)
    assert threshold({}, 1e6) == (0, True)
