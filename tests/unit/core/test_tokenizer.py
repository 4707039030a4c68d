"""The contract of ``core.tokenizer`` on a byte-level BPE (on sentencepiece: data_pipeline/test_vocabulary.py)."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_bpe import FOREIGN, PIECES, make_tokenizer_json

from dualmask.core.lexicon import Lexicon, character_starts, read_lexicon
from dualmask.core.tokenizer import MASK_ID, SPECIAL_IDS, SPECIALS, Tokenizer
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import prepare


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer_json(tmp_path_factory.mktemp("bpe")) / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return Tokenizer(file)


@pytest.fixture(scope="module")
def lexicon(tokenizer: Tokenizer) -> Lexicon:
    return read_lexicon(tokenizer)


@given(st.text())
@example("<|endoftext|> [MASK] <pad> <0x0A> \u2581 Ġ Ċ \n\n\t\r\n \x00 é e\u0301 \U0001f600 ")
def test_decode_encode_is_identity(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not SPECIAL_IDS & set(ids)


def test_ids_are_those_of_the_library_behind_the_special_ones(file: Path, tokenizer: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_file(str(file))
    text = "The value of a name, and that's 12 of them.\n" + FOREIGN
    assert tokenizer.encode(text) == [index + len(SPECIALS) for index in library.encode(text).ids]
    assert tokenizer.vocab_size == PIECES + len(SPECIALS)
    assert [tokenizer.piece(index) for index in sorted(SPECIAL_IDS)] == list(SPECIALS)


def test_added_tokens_are_plain_text_and_never_written(file: Path, tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    library = tokenizers.Tokenizer.from_file(str(file))
    index = library.token_to_id("<|endoftext|>") + len(SPECIALS)
    assert library.encode("<|endoftext|>").ids == [index - len(SPECIALS)]
    assert len(tokenizer.encode("<|endoftext|>")) > 1
    assert tokenizer.decode([MASK_ID, index, *tokenizer.encode("a"), index]) == "a"
    assert not lexicon.writable[[MASK_ID, index]].any()


def test_pieces_are_readable_and_lone_bytes_are_shown(tokenizer: Tokenizer) -> None:
    shown = "".join(map(tokenizer.piece, tokenizer.encode(" the name\n")))
    assert shown == " the name\n"
    bytes_of_a_rare_character = [tokenizer.piece(index) for index in tokenizer.encode("\U00010348")]
    assert "".join(bytes_of_a_rare_character) == "<0xF0><0x90><0x8D><0x88>"


def test_lexicon_counts_characters_and_never_writes_parts_of_them(tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    across = lexicon.continuation & (lexicon.characters > 0)
    assert across.any()  # pieces that end one character and begin another
    for index in range(tokenizer.vocab_size):
        text = tokenizer.decode([index])
        assert lexicon.writable[index] <= (text != "" and "\ufffd" not in text)
        assert lexicon.continuation[index] <= text.startswith("\ufffd")
    assert lexicon.writable.sum() > 400
    ids = tokenizer.encode(FOREIGN)
    assert across[ids].any()
    starts = character_starts(ids, lexicon)
    assert starts[-1] == len(FOREIGN)
    for position in range(len(ids)):
        if not lexicon.continuation[ids[position]]:
            assert tokenizer.decode(ids[:position]) == FOREIGN[: starts[position]]


def test_a_lock_holds_every_token_that_touches_it(tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    text = FOREIGN[:60]
    for start in range(len(text)):
        request = prepare(TextRequest(text, "edit", lock_spans=[(start, start + 1)]), tokenizer, lexicon)
        ((first, behind),) = request.locked
        assert text[start] in tokenizer.decode(request.ids[first:behind])
        ends = [request.ids[position] for position in (first, behind) if position < len(request.ids)]
        assert not lexicon.continuation[ends].any()  # the range can be parted from its neighbours


def without_byte(tree: dict) -> None:
    tree["model"]["vocab"] = {piece: n for n, piece in enumerate(p for p in tree["model"]["vocab"] if p != "ÿ")}


def with_hole(tree: dict) -> None:
    tree["model"]["vocab"]["Ġthe"] = 10**9


def with_prefix_space(tree: dict) -> None:
    tree["pre_tokenizer"]["add_prefix_space"] = True


def of_another_kind(tree: dict) -> None:
    tree["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}


def of_words(tree: dict) -> None:
    tree["pre_tokenizer"] = {"type": "Whitespace"}


def unknown_part(tree: dict) -> None:
    tree["pre_tokenizer"] = {"type": "Telepathy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_byte, "not byte-level: it lacks some of the 256 bytes"),
        (with_hole, "or some ids"),
        (with_prefix_space, "changes the text"),
        (of_words, "changes the text"),
        (of_another_kind, "not a tokenizer.json with a BPE model"),
        (unknown_part, "not a tokenizer.json that the library tokenizers reads"),
    ],
)
def test_files_that_would_lose_text_are_refused(file: Path, tmp_path: Path, change: object, message: str) -> None:
    tree = json.loads(file.read_bytes())
    change(tree)  # type: ignore[operator]
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=message) as raised:
        Tokenizer(tmp_path / "x.json")
    assert str(raised.value).startswith(f"{tmp_path / 'x.json'}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{nonsense", b'{"model": []}'])
def test_what_is_no_tokenizer_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x: n"):
        Tokenizer(tmp_path / "x")


def test_a_normalizer_does_not_lose_text(file: Path, tmp_path: Path) -> None:
    tree = json.loads(file.read_bytes())
    tree["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "x.json").write_text(json.dumps(tree))
    tokenizer = Tokenizer(tmp_path / "x.json")
    assert tokenizer.decode(tokenizer.encode("Upper e\u0301")) == "Upper e\u0301"
