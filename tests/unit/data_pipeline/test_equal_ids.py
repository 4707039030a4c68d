"""Documents of equal ids, in one unit, in several units of a file, in several files: none is lost."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from inputs import KINDS, PACKINGS, read_all, source_of

from data_pipeline import archive, columns, documents, lines
from data_pipeline.sources import units
from dualmask.config.data import DataBuildConfig

TEXTS = [f"Text {number} says {'x' * (1 + number % 7)} and not much more." for number in range(50)]
RECORDS = [{"id": "same", "text": text} for text in TEXTS]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, columns, archive):
        monkeypatch.setattr(module, "UNIT_BYTES", 400)


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", KINDS)
def test_all_records_are_read(name: str, packing: str, tmp_path: Path, small_units: None) -> None:
    """In a webdataset tar, they are samples of the same key, one behind the other."""
    kind, file, write = KINDS[name]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{file}{packing}").write_bytes(PACKINGS[packing](write(RECORDS)))
    source = source_of(kind, tmp_path)
    assert packing or len(units(source)) > 4
    read, skipped = read_all(source)
    assert skipped == []
    assert [document.text for document in read] == 2 * TEXTS


@pytest.mark.parametrize("name", KINDS)
def test_all_of_them_come_into_the_blocks(name: str, tmp_path: Path, small_units: None) -> None:
    """Each unit as a task of its own, as a build on several nodes may have it; the same split for equal ids."""
    kind, file, write = KINDS[name]
    (tmp_path / file).write_bytes(write(RECORDS))
    source = source_of(kind, tmp_path)
    config = DataBuildConfig.model_validate({"output": tmp_path / "out", "source": source, "clean": {"min_words": 1}})
    np.save(tmp_path / "evaluation.npy", np.zeros(0, np.uint64))
    blocks = []
    for number, part in enumerate(units(source)):
        blocks += documents.read_units(tmp_path, f"{number:06d}", [part], config)["blocks"]
    tables = [pq.read_table(tmp_path / f"{block['name']}.parquet").to_pylist() for block in blocks]
    rows = [row for table in tables for row in table]
    assert [" ".join(row["paragraphs"]) for row in rows] == TEXTS
    assert len({(row["file"], row["start"]) for row in rows}) == len(TEXTS)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_text_that_is_a_link_is_named(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as target:
        for name, content in (("a.txt", b"One."), ("b.txt", None), ("c.txt", b"Three.")):
            member = tarfile.TarInfo(name)
            member.size = len(content or b"")
            if content is None:
                member.type, member.linkname = kind, "a.txt"
            target.addfile(member, io.BytesIO(content or b""))
    read, (lost,) = read_all(source_of("webdataset", tmp_path, on_error="skip"))
    assert [document.text for document in read] == ["One.", "Three."]
    assert (lost.place, lost.reason) == ("sample b", "its text is a link: put the text there, webdataset follows none")
