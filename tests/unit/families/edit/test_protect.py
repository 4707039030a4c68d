"""The law of ``infer/protect.py``, on models that want to change everything."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bpe import make_tokenizer_json
from tiny_model import CONFIG, write_random_model

from dualmask.core.sampling import SamplingParams
from dualmask.core.words import BLANKS, MARKS, is_plain
from dualmask.families.edit.infer.protect import kept_runs, protected_spans
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import Writer, prepare
from dualmask.inference.loading import load

TEXTS = 1000
WILD = {"edit_threshold": 1e-6, "gate_threshold": 0.0, "rounds": 3, "max_growth": 30}
WORDS = (
    "the",
    "teh",
    "file",
    "return",
    "a",
    "list",
    "names",
    "It's,",
    "don't",
    "of",
    "is",
    "(see",
    "note)",
    "“quoted”",
    "well-known",
    "end.",
    "and",
    ",",
    "The",
    "then",
)
ODD = (
    "https://example.org/a,b?c=d#e",
    "www.example.org.",
    "me@example.org",
    "os.path.join(a, b)",
    "`x + y`",
    "``a `b` c``",
    "snake_case",
    "camelCase",
    "__init__.py",
    "C:\\temp",
    "/usr/bin:",
    "3.14",
    "x2",
    "2026-11-26",
    "10:30,",
    "==",
    "->",
    "😀👩‍👩‍👧",
    "日本語。",
    "naïve",
    "Ωmega",
    "العربية",
    "--help",
    "self.items[0]",
    "don’t",
    "a—b",
    "\x00",
    "\ufffd",
    "\u00a0",
    "\u2581",
    "e\u0301",
)
BETWEEN = (" ", " ", " ", " ", "", "  ", "\n", "\n\n    ", "\t", "\r\n")


def broken_law(before: str, after: str) -> str | None:
    """Which part of the law does not hold; None: it holds."""
    ordinary = re.compile(f"[A-Za-z {re.escape(MARKS)}]")
    if ordinary.sub("", before) != ordinary.sub("", after):
        return "other characters"
    if not in_order((before[start:end] for start, end in protected_spans(before)), after, apart=True):
        return "protected spans"
    blanks = re.compile(f"[{BLANKS}]{{2,}}|[^\\S ]", re.ASCII)
    return None if in_order(blanks.findall(before), after, apart=False) else "blanks"


def in_order(parts: Iterator[str] | list[str], text: str, *, apart: bool) -> bool:
    at = 0
    for part in parts:
        pattern = re.escape(part)
        if apart:
            pattern = f"(?<![^{BLANKS}]){pattern}(?![^{BLANKS}])"
        found = re.compile(pattern).search(text, at)
        if not found:
            return False
        at = found.end() - (not apart and part.endswith(" "))  # blanks may have a space in common
    return True


def random_text(draw: random.Random) -> str:
    kinds = [
        lambda: draw.choice(WORDS),
        lambda: draw.choice(ODD),
        lambda: "".join(chr(draw.choice((draw.randrange(0x20, 0x7F), draw.randrange(0xA0, 0xD7FF)))) for _ in range(4)),
    ]
    parts = (kind() for kind in draw.choices(kinds, [6, 2, 0.5], k=draw.randrange(12)))
    return "".join(part + draw.choice(BETWEEN) for part in parts)


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def eager(request: pytest.FixtureRequest, writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """A random model on either kind of tokenizer."""
    if request.param == "sentencepiece":
        return writer
    folder: Path = tmp_path_factory.mktemp("byte-level")
    tokenizer = make_tokenizer_json(folder) / "tokenizer.json"
    return Writer(load(write_random_model(folder / "model", CONFIG, tokenizer), "cpu"))


def outputs(writer: Writer, texts: list[str], **request: object) -> list[str]:
    requests = [
        TextRequest(
            text,
            **{"mode": "auto", "options": WILD} | request,
            sampling=SamplingParams(temperature=1.0, place_temperature=1.0, seed=seed),
        )
        for seed, text in enumerate(texts)
    ]
    return [result.output for result in writer.run(requests)]


def test_the_law_on_random_texts(eager: Writer) -> None:
    draw = random.Random(7)
    texts = [random_text(draw) for _ in range(TEXTS)]
    results = outputs(eager, texts)
    broken = [(law, *pair) for pair in zip(texts, results, strict=True) if (law := broken_law(*pair))]
    assert broken == []
    assert sum(map(str.__ne__, texts, results)) > 0.8 * TEXTS  # the model does want to change everything
    free = outputs(eager, texts[:100], protect=False)
    assert sum(broken_law(*pair) is not None for pair in zip(texts, free, strict=False)) > 50


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.one_of(st.sampled_from([*WORDS, *ODD, *BETWEEN]), st.text(max_size=5)), max_size=12))
def test_the_law_on_any_text(writer: Writer, text: list[str]) -> None:
    whole = "".join(text)
    for mode in ("auto", "edit"):
        (result,) = outputs(writer, [whole], mode=mode, options={"edit_threshold": 1e-6, "rounds": 2, "max_growth": 9})
        assert broken_law(whole, result) is None


@given(st.text(alphabet=st.one_of(st.sampled_from("ab_.`(9A)- \n,"), st.characters()), max_size=60))
def test_spans_are_whole_chunks_in_order(text: str) -> None:
    at = -1
    for start, end in protected_spans(text):
        assert at < start < end
        assert start == 0 or text[start - 1] in BLANKS
        assert end == len(text) or text[end] in BLANKS
        at = end
    covered = [*protected_spans(text), *kept_runs(text)]
    for position, letter in enumerate(text):
        ordinary = is_plain(letter) or letter == " "
        assert ordinary or any(start <= position < end for start, end in covered)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("See http://a.b/c?d, and me@x.org now.", ["http://a.b/c?d,", "me@x.org"]),
        ("The `foo bar baz` is ``a `x` b`` here", ["`foo bar baz`", "``a `x` b``"]),
        ("It calls os.path.join(a, b) on foo_bar, camelCase.", ["os.path.join(a, b)", "foo_bar,", "camelCase."]),
        ("An IOError in 3 files: the 2nd is src/main or .git", ["IOError", "3", "2nd", "src/main", ".git"]),
        ("Use -v or --help -> now == then", ["-v", "--help", "->", "=="]),
        ("A naïve 日本 word 😀.", ["naïve", "日本", "😀."]),
        ("x_`a b` c", ["x_`a b`"]),
        ("Teh (well-known) “dogs’” don't, can't; It's a 'word'. The End!", []),
        ("THe URL and the file,then the next one", []),
        ("", []),
    ],
)
def test_what_is_protected(text: str, spans: list[str]) -> None:
    assert [text[start:end] for start, end in protected_spans(text)] == spans


@pytest.mark.parametrize(
    ("mode", "options", "protect", "protects"),
    [
        ("auto", {}, None, True),
        ("auto", {}, False, False),
        ("edit", {}, None, True),
        ("edit", {"keep_rate": 0.5}, None, False),
        ("edit", {"keep_rate": 0.5}, True, True),
        ("summarize", {"keep_rate": 0.5}, None, False),
        ("generate", {}, None, False),
        ("infill", {}, None, False),
    ],
)
def test_when_a_text_is_protected(mode: str, options: dict, protect: bool | None, protects: bool) -> None:
    text = "A ___ x2."
    assert TextRequest(text, mode, protect=protect, options=options).protects is protects


def test_asked_for_it_holds_in_other_modes_too(writer: Writer) -> None:
    text = "The name x2 is in os.path and the names are 日本 and y3 of it. " * 3
    for mode, rate in (("summarize", 0.1), ("edit", 0.2)):
        (result,) = outputs(writer, [text], mode=mode, protect=True, options={"keep_rate": rate})
        assert broken_law(text, result) is None
        assert result != text
    with pytest.raises(ValueError, match="protect in infill"):
        TextRequest("A ___.", "infill", protect=True)


def test_words_beside_protected_ones_can_still_be_mended(writer: Writer) -> None:
    """Each word of the sentence is deleted in some run, also those behind and in front of what is protected."""
    text = "The function x2 return the os.path name"
    results = outputs(writer, [text] * 200)
    for word in ("The", "function", "return", "the", "name"):
        assert any(word not in result.split() for result in results), word


def test_what_the_vocabulary_lacks_stays_even_if_it_is_a_letter(writer: Writer) -> None:
    text = "the Zoo in the Xian"
    pieces = [writer.tokenizer.piece(index) for index in writer.tokenizer.encode(text)]
    protection = prepare(TextRequest(text, "auto"), writer.tokenizer, writer.lexicon).protection
    assert protection is not None
    assert [pieces[start:end] for start, end in protection.ranges] == [["Z"], ["X"]]


def test_the_blank_behind_a_protected_word_belongs_to_the_next_one(writer: Writer) -> None:
    text = "x2 is the os.path of y3"
    pieces = [writer.tokenizer.piece(index) for index in writer.tokenizer.encode(text)]
    protection = prepare(TextRequest(text, "auto"), writer.tokenizer, writer.lexicon).protection
    assert protection is not None
    assert protection.front
    assert ["".join(pieces[start:end]) for start, end in protection.ranges] == ["x2", " os.path", " y3"]
    assert ["".join(pieces[: last + 1]) for last in protection.apart] == ["x2", "x2 is the os.path", text]
    assert prepare(TextRequest(text, "auto", protect=False), writer.tokenizer, writer.lexicon).protection is None


def test_the_word_behind_an_indentation_can_be_mended(writer: Writer) -> None:
    text = "The name.\n    Teh list.  Another one\n\n"
    results = outputs(writer, [text] * 100)
    assert all(broken_law(text, result) is None for result in results)
    for word in ("\n    Teh", ".  Another"):
        assert any(word not in result for result in results), word
