import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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
    assert [(doc.id, doc.text) for doc in read(unit, source)] == [("a", "First."), (f"{file.name}:3", "Second ü.")]


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


def parquet_file(path: Path, **columns: list[object]) -> SourceConfig:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return SourceConfig(kind="parquet", paths=(str(path.parent),), text_field="body")


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "x.parquet", extra=[1, 2, 3], body=["One.", "", "Drei ü."], id=["a", "b", "c"])
    (unit,) = units(source)
    assert [(doc.id, doc.text) for doc in read(unit, source)] == [("a", "One."), ("b", ""), ("c", "Drei ü.")]
    unnamed = source.model_copy(update={"id_field": "name"})
    assert [doc.id for doc in read(unit, unnamed)] == ["x.parquet:1", "x.parquet:2", "x.parquet:3"]


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """The second row group is damaged, and the rows of the first are there all the same."""
    rows = [f"{number} " + "word " * 300 for number in range(4000)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "x.parquet", row_group_size=2000, compression="zstd")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    middle = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1).column(0).data_page_offset
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "x.parquet").write_bytes(content)
    source = SourceConfig(kind="parquet", paths=(str(tmp_path / "*.parquet"),))
    documents = read(units(source)[0], source)
    assert next(documents).text == rows[0]
    with pytest.raises(SourceError, match=r"x\.parquet rows 2001 to 4000: cannot be read: ") as refused:
        list(documents)
    assert "\n" not in str(refused.value)


def test_parquet_without_the_text(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "x.parquet", text=["One."], id=["a"])
    with pytest.raises(SourceError, match=r"x\.parquet: no column source\.text_field='body'; the file has: text, id"):
        list(read(units(source)[0], source))
    source = parquet_file(tmp_path / "x.parquet", body=["One.", None])
    with pytest.raises(SourceError, match=r"row 2: no text in source\.text_field='body'; the row has: body"):
        list(read(units(source)[0], source))
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"x\.parquet: cannot be read: "):
        list(read(units(source)[0], source))


def test_lines_of_a_text_that_begin_documents(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("before\n# One\n\ntext # no\n# Two\nmore")
    source = SourceConfig(kind="text", paths=(str(tmp_path),), document_start="# ")
    assert [(doc.id, doc.text) for doc in read(units(source)[0], source)] == [
        ("x.txt:1", "before"),
        ("x.txt:2", "# One\n\ntext # no"),
        ("x.txt:5", "# Two\nmore"),
    ]


def test_json_lines_that_begin_documents(tmp_path: Path) -> None:
    lines = [{"id": name, "text": text} for name, text in (("a", "= A"), ("b", "b"), ("c", "= C"))]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = SourceConfig(kind="jsonl", paths=(str(tmp_path),), document_start="=")
    assert [(doc.id, doc.text) for doc in read(units(source)[0], source)] == [("a", "= A\nb"), ("c", "= C")]
