"""Files at addresses: a real web server, whose faults are outlasted or named; the memory file system for folders."""

from pathlib import Path

import fsspec
import pytest
from inputs import KINDS, PACKINGS, jsonl, parquet, read_all, source_of
from web_server import web_server

from data_pipeline import lines, opening
from data_pipeline.sources import SourceError, fingerprints, units

RECORDS = [{"id": f"d{n}", "text": f"Text {n} über {'x' * (n % 7)}."} for n in range(60)]
TEXTS = [record["text"] for record in RECORDS]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_LONGEST_WAIT_SECONDS", 0.05)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_documents_as_from_a_disk(name: str, packing: str) -> None:
    kind, file, write = KINDS[name]
    with web_server({f"a/{file}{packing}": PACKINGS[packing](write(RECORDS))}) as server:
        documents, skipped = read_all(source_of(kind, f"{server.address}/a/{file}{packing}"))
    assert ([doc.text for doc in documents], skipped) == (TEXTS, [])


def test_units_of_a_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "UNIT_BYTES", 400)
    with web_server({"x.jsonl": jsonl(RECORDS)}) as server:
        source = source_of("jsonl", f"{server.address}/x.jsonl?token=1")
        assert len(units(source)) > 3
        assert [doc.text for doc in read_all(source)[0]] == TEXTS


@pytest.mark.parametrize("fault", [500, 503, 429, "cut"])
def test_faults_that_pass_are_outlasted(fault: int | str) -> None:
    with web_server({"x.jsonl.gz": PACKINGS[".gz"](jsonl(RECORDS))}) as server:
        source = source_of("jsonl", f"{server.address}/x.jsonl.gz")
        read_all(source)
        needed = server.requests
        for place in range(needed):  # every request fails three times
            server.faults = [0] * place + [fault] * 3
            documents, _ = read_all(source)
            assert [doc.text for doc in documents] == TEXTS
            assert server.faults == []


def test_faults_that_last_are_one_line() -> None:
    with web_server({"x.jsonl": jsonl(RECORDS)}) as server:
        source = source_of("jsonl", f"{server.address}/x.jsonl")
        server.faults = [500] * 1000
        with pytest.raises(SourceError, match=r"source\.paths: http://.*/x\.jsonl: cannot be listed: ") as refused:
            units(source)
        assert "\n" not in str(refused.value)
        server.faults = []
        with pytest.raises(SourceError, match=r"none\.jsonl: cannot be listed: "):
            units(source_of("jsonl", f"{server.address}/none.jsonl"))


def test_a_server_that_gives_no_parts_of_files() -> None:
    with web_server({"x.jsonl": jsonl(RECORDS), "x.parquet": parquet(RECORDS)}, ranges=False) as server:
        for kind in ("jsonl", "parquet"):
            documents, _ = read_all(source_of(kind, f"{server.address}/x.{kind}"))
            assert [doc.text for doc in documents] == TEXTS


def test_folders_and_globs_of_a_file_system() -> None:
    system = fsspec.filesystem("memory")
    try:
        for name in ("b.jsonl", "a.jsonl.gz", "sub/c.jsonl", ".hidden.jsonl", "notes.txt"):
            system.pipe(f"/corpus/{name}", PACKINGS[".gz" if name.endswith("gz") else ""](jsonl(RECORDS[:1])))
        whole = source_of("jsonl", "memory://corpus")
        assert [unit.name for unit in units(whole)] == ["a.jsonl.gz", "b.jsonl", "sub/c.jsonl"]
        assert [doc.text for doc in read_all(whole)[0]] == TEXTS[:1] * 3
        assert [unit.name for unit in units(source_of("jsonl", "memory://corpus/*.jsonl"))] == ["b.jsonl"]
        before = fingerprints(whole)
        system.pipe("/corpus/b.jsonl", jsonl(RECORDS[:2]))
        assert fingerprints(whole) != before
        with pytest.raises(SourceError, match=r"notes\.txt: not \.jsonl or"):
            units(source_of("jsonl", "memory://corpus/notes.txt"))
    finally:
        system.rm("/corpus", recursive=True)


def test_pages_of_a_web_server_are_folders() -> None:
    with web_server({"corpus/b.jsonl": jsonl(RECORDS[:1]), "corpus/a.txt": b"x"}) as server:
        assert [Path(unit.name).name for unit in units(source_of("jsonl", f"{server.address}/corpus/"))] == ["b.jsonl"]
