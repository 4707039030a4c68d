import gzip
import json
import lzma
from pathlib import Path

import pytest

from data_pipeline.sources import SourceError, read, units
from dualmask.config.data import SourceConfig

LINES = [{"id": "a", "text": "First."}, {"text": "Second ü."}]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_json_lines_packed_or_not(tmp_path: Path, suffix: str, pack: object) -> None:
    file = tmp_path / f"x.jsonl{suffix}"
    file.write_bytes(pack("\n\n".join(map(json.dumps, LINES)).encode()))  # type: ignore[operator]
    source = SourceConfig(kind="jsonl", paths=(str(tmp_path),))
    (unit,) = units(source)
    assert [(doc.id, doc.texts) for doc in read(unit, source)] == [("a", ["First."]), (f"{file.name}:3", ["Second ü."])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "ok"}\n{"body": "x"}', r"line 2: no text in source.text_field='text'; the line has: body"),
        (b'{"text": 7}', "line 1: no text"),
        (b"nonsense", "line 1: not JSON"),
        (b"[1]", "line 1: not a JSON object but list"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    source = SourceConfig(kind="jsonl", paths=(str(tmp_path / "*.jsonl"),))
    with pytest.raises(SourceError, match=message):
        list(read(units(source)[0], source))


def test_truncated_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.xz").write_bytes(lzma.compress(json.dumps(LINES[0]).encode() * 9)[:-20])
    source = SourceConfig(kind="jsonl", paths=(str(tmp_path),))
    with pytest.raises(SourceError, match=r"x\.jsonl\.xz: cannot be read"):
        list(read(units(source)[0], source))


def test_nothing_matches(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"source\.dev_paths: '.*none' matches no \.txt"):
        units(SourceConfig(kind="text", paths=(__file__,), dev_paths=(str(tmp_path / "none"),)))


def test_own_splits_come_before_the_corpus(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.md", "t.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    source = SourceConfig(kind="text", paths=(str(tmp_path),), test_paths=(str(tmp_path / "t.txt"),))
    assert [(unit.name, unit.split) for unit in units(source)] == [
        ("t.txt", "test"),
        ("b.txt", "train"),
        ("sub/a.md", "train"),
        ("t.txt", "train"),
    ]
