"""Every kind of file, packed in every way, whole and cut into units: the same documents at the places they name."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import KINDS, PACKINGS, arrow_stream, csv_of, jsonl, read_all, source_of, tar

from data_pipeline import archive, columns, lines
from data_pipeline.sources import SourceError, read, units

RECORDS = [{"id": f"d{n}", "text": f'Text {n}, über "{"x" * (n % 7)}"\nand a second line.'} for n in range(50)]
SIMPLE = [{"id": f"d{n}", "text": f"Text {n} über {'x' * (n % 7)}."} for n in range(50)]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, columns, archive):
        monkeypatch.setattr(module, "UNIT_BYTES", 400)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", KINDS)
def test_the_same_documents(name: str, packing: str, tmp_path: Path) -> None:
    kind, file, write = KINDS[name]
    (tmp_path / f"{file}{packing}").write_bytes(PACKINGS[packing](write(RECORDS)))
    documents, skipped = read_all(source_of(kind, tmp_path))
    assert skipped == []
    assert [(doc.id, doc.text) for doc in documents] == [
        (record["id"] if name != "tar of txt" else f"{file}{packing}:{record['id']}", record["text"])
        for record in RECORDS
    ]


@pytest.mark.parametrize("name", KINDS)
def test_units_are_parts_of_a_file(name: str, tmp_path: Path, small_units: None) -> None:
    kind, file, write = KINDS[name]
    (tmp_path / file).write_bytes(write(SIMPLE))
    source = source_of(kind, tmp_path)
    parts = units(source)
    assert len(parts) > 2
    assert [doc.text for part in parts for doc in read(part, source)] == [record["text"] for record in SIMPLE]
    assert all(list(read(part, source)) for part in parts)


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_place_is_where_the_record_stands(name: str, tmp_path: Path, small_units: None) -> None:
    kind, file, write = KINDS[name]
    content = b"\xef\xbb\xbf" + write(SIMPLE)
    (tmp_path / file).write_bytes(content)
    documents, _ = read_all(source_of(kind, tmp_path))
    assert len(documents) == len(SIMPLE)
    for doc in documents:
        assert doc.text in content[doc.start : doc.stop].decode()
        assert content[doc.start : doc.stop].endswith(b"\n")
    assert documents[-1].stop == len(content)


def test_rows_and_members_have_places_too(tmp_path: Path, small_units: None) -> None:
    (tmp_path / "x.arrow").write_bytes(arrow_stream(SIMPLE))
    documents, _ = read_all(source_of("arrow", tmp_path))
    assert [(doc.start, doc.stop) for doc in documents] == [(n, n + 1) for n in range(len(SIMPLE))]
    (tmp_path / "x.tar").write_bytes(content := tar(SIMPLE))
    documents, _ = read_all(source_of("webdataset", tmp_path))
    assert [content[doc.start : doc.stop].decode() for doc in documents] == [record["text"] for record in SIMPLE]


def test_lines_have_their_numbers_in_every_unit(tmp_path: Path, small_units: None) -> None:
    content = b"".join(b"\n" * (n % 3) + json.dumps({"text": str(n)}).encode() + b"\n" for n in range(200))
    (tmp_path / "x.jsonl").write_bytes(content)
    source = source_of("jsonl", tmp_path)
    assert len(units(source)) > 2
    documents, _ = read_all(source)
    numbers = [number for number, line in enumerate(content.split(b"\n"), 1) if line]
    assert [doc.id for doc in documents] == [f"x.jsonl:{number}" for number in numbers]


def test_units_begin_where_documents_do(tmp_path: Path, small_units: None) -> None:
    text = "".join(f"# {n}\n" + "a line\n" * (n % 40) for n in range(60))
    (tmp_path / "x.txt").write_text(text)
    source = source_of("text", tmp_path, document_start="# ")
    parts = units(source)
    assert len(parts) > 2
    documents, _ = read_all(source)
    assert [doc.text.partition("\n")[0] for doc in documents] == [f"# {n}" for n in range(60)]
    assert "\n".join(doc.text for doc in documents) + "\n" == text
    (tmp_path / "x.jsonl").write_bytes(jsonl([{"id": str(n), "text": line} for n, line in enumerate(text.split("\n"))]))
    source = source_of("jsonl", tmp_path, document_start="# ")
    assert len(units(source)) > 2
    assert len(read_all(source)[0]) == 60


def test_csv_with_quotes_is_one_unit(tmp_path: Path, small_units: None) -> None:
    (tmp_path / "x.csv").write_bytes(csv_of(RECORDS))
    source = source_of("csv", tmp_path)
    assert len(units(source)) == 1
    assert [doc.text for doc in read_all(source)[0]] == [record["text"] for record in RECORDS]


def test_tabs_separate_the_fields_of_tsv(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("name\ttext\na\tOne, two.\n")
    documents, _ = read_all(source_of("csv", tmp_path, id_field="name"))
    assert [(doc.id, doc.text) for doc in documents] == [("a", "One, two.")]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "webdataset"])
def test_nested_fields(kind: str, tmp_path: Path) -> None:
    records = [{"meta": {"id": "a", "n": {"t": "One."}}}, {"meta": {"id": None, "n": {"t": "Two."}}}]
    table = pa.Table.from_pylist(records)
    if kind == "jsonl":
        (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    elif kind == "parquet":
        pq.write_table(table, tmp_path / "x.parquet")
    elif kind == "arrow":
        with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        with tarfile.open(tmp_path / "x.tar", "w") as archive_file:
            for number, record in enumerate(records, 1):
                member = tarfile.TarInfo(f"{number}.json")
                data = json.dumps(record).encode()
                member.size = len(data)
                archive_file.addfile(member, io.BytesIO(data))
    documents, _ = read_all(source_of(kind, tmp_path, text_field="meta.n.t", id_field="meta.id"))
    assert [(doc.id.partition(":")[2] or doc.id, doc.text) for doc in documents] == [("a", "One."), ("2", "Two.")]


def test_a_field_whose_name_has_a_dot(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a.b": "One.", "a": {"b": "Two."}}')
    assert [doc.text for doc in read_all(source_of("jsonl", tmp_path, text_field="a.b"))[0]] == ["One."]


def test_columns_of_other_types_of_text(tmp_path: Path) -> None:
    for number, kind in enumerate((pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))):
        table = pa.table({"text": pa.array(["One.", "Zwei ü.", "One."]).cast(kind), "id": [7, 8, 9]})
        with pa.OSFile(str(tmp_path / f"{number}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    documents, _ = read_all(source_of("arrow", tmp_path))
    assert [(doc.id, doc.text) for doc in documents] == [("7", "One."), ("8", "Zwei ü."), ("9", "One.")] * 3
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"column source\.text_field='text' holds int64: name one of texts"):
        read_all(source_of("parquet", tmp_path))


def test_names_that_do_not_tell_apart(tmp_path: Path) -> None:
    rows = [{"id": None, "text": "a"}, {"id": "x", "text": "b"}, {"id": "x", "text": "c"}, {"id": "", "text": "d"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [doc.id for doc in read_all(source_of("jsonl", tmp_path))[0]] == [
        "x.jsonl:1",
        "x",
        "x.jsonl:3",
        "x.jsonl:4",
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "gb18030", "utf-8-sig"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = "Ünder älder Öl." if encoding != "gb18030" else "中文 Öl"
    for name, content in (
        ("x.txt", f"# {text}\nmore\n"),
        ("x.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n"),
        ("x.csv", f"id,text\r\na,{text}\r\n"),
    ):
        (tmp_path / name).write_bytes(content.encode(encoding))
    keys = {"encoding": encoding}
    assert [doc.text for doc in read_all(source_of("text", tmp_path, **keys))[0]] == [f"# {text}\nmore\n"]
    assert [doc.text for doc in read_all(source_of("text", tmp_path, document_start="#", **keys))[0]] == [
        f"# {text}\nmore"
    ]
    for kind in ("jsonl", "csv"):
        assert [doc.text for doc in read_all(source_of(kind, tmp_path, **keys))[0]] == [text]
