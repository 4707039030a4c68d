"""Records that cannot be read: refused by file and place, or left out, counted and named."""

import io
import json
import lzma
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import PACKINGS, arrow_stream, jsonl, parquet, read_all, source_of, tar

from data_pipeline.sources import SourceError

GOOD = [{"id": f"d{n}", "text": f"Text number {n}."} for n in range(100)]
MEGABYTE = 2**20


def check(
    tmp_path: Path, kind: str, file: str, content: bytes, places: list[str], reason: str, documents: int, **keys: object
) -> None:
    """Skipping names ``places``; not skipping refuses the first of them in one line."""
    (tmp_path / file).write_bytes(content)
    read, skipped = read_all(source_of(kind, tmp_path, on_error="skip", **keys))
    assert [item.place for item in skipped] == places
    assert all(item.file == str(tmp_path / file) for item in skipped)
    assert reason in skipped[0].reason
    assert len(read) == documents
    with pytest.raises(SourceError) as refused:
        read_all(source_of(kind, tmp_path, **keys))
    assert str(refused.value) == str(skipped[0])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "not JSON"),
        (b"[1]", "not a JSON object but list"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": null}', "no text in source.text_field='text'"),
        (b'{"text": "\\ud800"}', "the text is no Unicode: U+D800 at 0 is half a character"),
        (b'{"text": "\xff"}', "not utf-8 (byte 0xff at 10): name another source.encoding"),
        (b'{"text": "' + b"x" * 2 * MEGABYTE + b'"}', "longer than source.max_record_megabytes=1: raise it"),
    ],
)
def test_lines_of_jsonl(line: bytes, reason: str, tmp_path: Path) -> None:
    content = jsonl(GOOD[:3]) + line + b"\n" + jsonl(GOOD[3:]) + line
    check(tmp_path, "jsonl", "x.jsonl", content, ["line 4", "line 102"], reason, 100, max_record_megabytes=1)


def test_lines_and_files_of_text(tmp_path: Path) -> None:
    check(tmp_path, "text", "x.txt", b"good\nb\xffd\ngood\n", [""], "not utf-8 (byte 0xff at 6)", 0)
    check(tmp_path, "text", "x.txt", b"a\nb\xffd\na\n", ["line 2"], "not utf-8", 2, document_start="a")
    check(
        tmp_path, "text", "x.txt", b"x" * 2 * MEGABYTE, [""], "or set source.document_start", 0, max_record_megabytes=1
    )
    grown = b"a\n" + b"word\n" * MEGABYTE + b"a\nb\n"
    place = ["document x.txt:1"]
    check(tmp_path, "text", "x.txt", grown, place, "longer", 1, max_record_megabytes=1, document_start="a")


@pytest.mark.parametrize(
    ("row", "places", "reason"),
    [
        (b"only one\n", ["line 4"], "1 fields, and the first line names 2"),
        (b'a,"b" c\n', ["line 4"], "no CSV: "),
        (b'a,"one\ntwo"x\n', ["lines 4 to 5"], "no CSV: "),
        (b"a,b\xff\n", ["line 4"], "not utf-8 (byte 0xff)"),
        (b"a," + b"x" * 2 * MEGABYTE + b"\n", ["line 4"], "longer than source.max_record_megabytes=1"),
    ],
)
def test_rows_of_csv(row: bytes, places: list[str], reason: str, tmp_path: Path) -> None:
    content = b"id,text\na,One.\nb,Two.\n" + row + b"c,Three.\nd,Four.\n"
    check(tmp_path, "csv", "x.csv", content, places, reason, 4, max_record_megabytes=1)


def test_a_quote_that_never_ends_is_counted_by_its_lines(tmp_path: Path) -> None:
    content = b'id,text\na,One.\nb,"Two.\n' + b"c,Three.\n" * 7
    check(tmp_path, "csv", "x.csv", content, ["lines 3 to 10"], "no CSV: unexpected end of data", 1)
    _, (lost,) = read_all(source_of("csv", tmp_path, on_error="skip"))
    assert lost.records == 8


def test_csv_without_the_text(tmp_path: Path) -> None:
    check(
        tmp_path, "csv", "x.csv", b"a,b\n1,2\n", [""], "no column source.text_field='text'; the first line has: a, b", 0
    )


def test_rows_of_parquet(tmp_path: Path) -> None:
    content, table = io.BytesIO(), pa.table({"text": [b"One.", None, b"\xff", b"Four."]})
    pq.write_table(table.cast(pa.schema([("text", pa.binary())])), content)
    named = table.column("text").combine_chunks().view(pa.string())
    content = io.BytesIO()
    pq.write_table(pa.table({"text": named}), content)
    check(tmp_path, "parquet", "x.parquet", content.getvalue(), ["row 2", "row 3"], "no text in source.text_field", 2)


def test_a_damaged_row_group_loses_its_rows_only(tmp_path: Path) -> None:
    content = bytearray(parquet(GOOD))
    group = pq.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(2).column(1)
    content[group.data_page_offset : group.data_page_offset + 10] = bytes(10)
    check(tmp_path, "parquet", "x.parquet", bytes(content), ["rows 41 to 60"], "cannot be read: ", 80)
    _, (lost,) = read_all(source_of("parquet", tmp_path, on_error="skip"))
    assert lost.records == 20


def test_a_cut_off_arrow_stream(tmp_path: Path) -> None:
    content = arrow_stream(GOOD)
    check(tmp_path, "arrow", "x.arrow", content[:-8], ["record batch 6"], "its end is missing", 100)


def test_samples_of_a_tar(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in (
            ("a.txt", b"One."),
            ("b.txt", b"\xff"),
            ("c.json", b"[1]"),
            ("d.json", b'{"body": "x"}'),
            ("e.txt", b"x" * 2 * MEGABYTE),
            ("f.jpg", b"x"),
            ("g.txt", b"Seven."),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    places = [f"sample {name}" for name in "bcdef"]
    check(tmp_path, "webdataset", "x.tar", content.getvalue(), places, "not utf-8", 2, max_record_megabytes=1)


@pytest.mark.parametrize("damage", ["cut", "header", "tail"])
def test_a_damaged_tar_never_ends_early_in_silence(damage: str, tmp_path: Path) -> None:
    content = bytearray(tar(GOOD))
    if damage == "cut":
        content = content[: 512 * 4 * 50]
    elif damage == "header":
        start = content.index(b"d50.txt")
        content[start + 148 : start + 156] = b"xxxxxxxx"
    else:
        content += b"something" * 100
    (tmp_path / "x.tar").write_bytes(content)
    read, (lost,) = read_all(source_of("webdataset", tmp_path, on_error="skip"))
    assert len(read) == (100 if damage == "tail" else 50)
    assert "cannot be read: " in lost.reason


@pytest.mark.parametrize("packing", [packing for packing in PACKINGS if packing])
@pytest.mark.parametrize("damage", ["cut", "empty", "tail", "second"])
def test_a_damaged_packed_file_never_ends_early_in_silence(packing: str, damage: str, tmp_path: Path) -> None:
    pack, text = PACKINGS[packing], jsonl(GOOD)
    packed = pack(text)
    content = {
        "cut": packed[:-9],
        "empty": b"",
        "tail": packed + b"something else",
        "second": packed + b"\x01" + pack(text)[1:],
    }[damage]
    (tmp_path / f"x.jsonl{packing}").write_bytes(content)
    read, skipped = read_all(source_of("jsonl", tmp_path, on_error="skip"))
    assert skipped
    assert all("cannot be read: " in item.reason or "not JSON" in item.reason for item in skipped)
    assert [doc.id for doc in read] == [record["id"] for record in GOOD[: len(read)]]


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files_behind_each_other(packing: str, tmp_path: Path) -> None:
    pack = PACKINGS[packing]
    (tmp_path / f"x.jsonl{packing}").write_bytes(pack(jsonl(GOOD[:50])) + pack(jsonl(GOOD[50:])))
    assert [doc.id for doc in read_all(source_of("jsonl", tmp_path))[0]] == [record["id"] for record in GOOD]


def test_too_many_errors_are_one_after_all(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"x\n" * 5 + jsonl(GOOD))
    assert len(read_all(source_of("jsonl", tmp_path, on_error="skip", max_errors=5))[1]) == 5
    with pytest.raises(
        SourceError, match=r"more than source\.max_errors=4 records .* the last: .*x\.jsonl line 5: not"
    ):
        read_all(source_of("jsonl", tmp_path, on_error="skip", max_errors=4))


@pytest.mark.parametrize("packing", ["", ".xz"])
def test_a_long_line_costs_no_more_than_the_limit(packing: str, tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 200 * MEGABYTE}).encode() + b"\n"
    content = jsonl(GOOD[:1]) + line + jsonl(GOOD[1:2])
    (tmp_path / f"x.jsonl{packing}").write_bytes(lzma.compress(content, preset=0) if packing else content)
    del line, content
    tracemalloc.start()
    read, (lost,) = read_all(source_of("jsonl", tmp_path, on_error="skip", max_record_megabytes=4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ([doc.id for doc in read], lost.place) == (["d0", "d1"], "line 2")
    assert peak < 16 * MEGABYTE
