"""A file of human scores: what is wrong is named by file, line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import make_tokenizer

from dualmask.config.tree import ConfigError
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.scores import read_scores

GOOD = [{"draft": "a word", "output": "a", "score": 3}, {"draft": "a", "output": "", "score": 1.5}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(make_tokenizer(tmp_path_factory.mktemp("scores") / "tokenizer.model"))


def test_edits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("\n\n".join(map(json.dumps, GOOD)))
    first, second = read_scores(path, tokenizer, 32)
    assert first == (tokenizer.encode("a word"), tokenizer.encode("a"), 3.0)
    assert second == (tokenizer.encode("a"), [], 1.5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "exactly the keys"),
        (json.dumps(GOOD[0] | {"more": 1}), "exactly the keys"),
        (json.dumps(GOOD[0] | {"draft": 1}), "draft = 1 must be a text"),
        (json.dumps(GOOD[0] | {"score": True}), "score = True must be a number"),
        (json.dumps(GOOD[0] | {"score": "3"}), "score = '3' must be a number"),
        ('{"draft": "a", "output": "a", "score": NaN}', "must be finite"),
        (json.dumps(GOOD[0] | {"output": "word " * 99}), "model.max_length=32"),
        ('{"draft": "\\ud800", "output": "a", "score": 1}', "lone surrogate"),
        ("[" * 100_000, ""),
    ],
)
def test_a_bad_line_is_named(line: str, words: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(edit) + "\n" for edit in GOOD) + line)
    with pytest.raises(ConfigError) as caught:
        read_scores(path, tokenizer, 32)
    assert str(caught.value).startswith(f"{path} line 3: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_teaches_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_scores(path, tokenizer, 32)
    path.write_text(json.dumps(GOOD[0]) + "\n" + json.dumps(GOOD[0]))
    with pytest.raises(ConfigError, match="different scores"):
        read_scores(path, tokenizer, 32)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_scores(path, tokenizer, 32)
