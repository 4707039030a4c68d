"""What a build says of its data: where each row comes from, and what the folder holds."""

from __future__ import annotations

import json
import lzma
import re
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import builds
import pyarrow.parquet as pq
import pytest

from data_pipeline import clean, documents, packing
from data_pipeline.build import build
from data_pipeline.crop import unpack
from data_pipeline.manifest import Manifest
from data_pipeline.store import MemberStore
from data_pipeline.trace import Origin, trace
from dualmask.config.data import DataBuildConfig
from dualmask.core.tokenizer import Tokenizer

FILES = 4
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python's language reference as some files of lines, one of them packed, with letters of several bytes."""
    folder = tmp_path_factory.mktemp("corpus")
    records = [{"id": name, "text": f"{text}\n\nНовая строка, 日本語 é."} for name, text in sorted(topics.items())]
    for number in range(FILES):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records[number::FILES])
        (folder / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    packed = folder / "0.jsonl"
    (folder / "0.jsonl.xz").write_bytes(lzma.compress(packed.read_bytes()))
    packed.unlink()
    return folder


def config_for(output: Path, corpus: Path, **changes: Any) -> DataBuildConfig:
    of_records = {
        "source": {"kind": "jsonl", "paths": [str(corpus)]},
        "clean": {"style": "plain"},
        "dedup": {"paragraphs": False, "near_duplicate": None},
        "max_length": 48,
        "shards": {"sequences_per_member": 64, "members_per_shard": 8},
    }
    return builds.config_for(output, corpus, **of_records | changes)


@cache
def content_of(file: str) -> bytes:
    raw = Path(file).read_bytes()
    return lzma.decompress(raw) if file.endswith(".xz") else raw


@cache
def text_at(origin: Origin) -> bytes:
    """The cleaned text of the document there."""
    record = json.loads(content_of(origin.file)[origin.start : origin.stop])
    return "\n\n".join(clean.paragraphs([record["text"]], "plain")).encode()


@pytest.mark.parametrize("kind", ["stream", "documents"])
def test_every_row_is_in_the_documents_that_its_lineage_names(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With several blocks, and several buckets of a split."""
    monkeypatch.setattr(documents, "_TASK_BYTES", 2**18)
    monkeypatch.setattr(packing, "BUCKET_TOKENS", 2**16)
    manifest = build(config_for(tmp_path, corpus, packing=kind))
    assert len(documents.selected(tmp_path / ".work")) > 1
    assert len(list((tmp_path / ".work" / "rows").glob("train-*"))) == 0  # only shards and lineage are left
    tokenizer = Tokenizer(tmp_path / "tokenizer.model")
    named = set()
    for split, info in manifest.splits.items():
        store = MemberStore(tmp_path, split)
        for shard in info.shards:
            table = pq.read_table(tmp_path / "lineage" / shard.file.replace(".tar", ".parquet"))
            assert table.column_names == ["row", "file", "start", "stop"]
            origins: dict[int, list[Origin]] = {}
            for record in table.to_pylist():
                origins.setdefault(record.pop("row"), []).append(Origin(**record))
            assert set(origins) == set(range(shard.rows))
            row = 0
            for member in range(len(shard.members)):
                tokens, lengths = store.member(store.shards.find(shard.file), member)
                for ids, length in zip(tokens, lengths, strict=True):
                    held = list(map(text_at, origins[row]))
                    check(ids[None, :length], held, tokenizer, store.packed)
                    named |= {(split, origin) for origin in origins[row]}
                    row += 1
            assert trace(f"{tmp_path}/{shard.file}:{row - 1}") == origins[row - 1]
    counts = {split: sum(part == split for part, _ in named) for split in manifest.splits}
    assert counts == {split: info.documents for split, info in manifest.splits.items()}


def check(ids: Any, held: list[bytes], tokenizer: Tokenizer, packed: bool) -> None:
    """A row of a stream is a part of its documents one behind the other, and of no fewer; a packed one has parts of
    each."""

    def content(row: Any, length: int) -> bytes:
        return b"".join(tokenizer.content(index) for index in row[1 : length - 1].tolist())

    if not packed:
        text, stream = content(ids[0], ids.shape[1]), b"\n%b\n" % b"\n".join(held)
        starts = [match.start() for match in re.finditer(b"(?=%b)" % re.escape(text), stream)]
        last = len(stream) - 1 - len(held[-1])
        assert any(start <= len(held[0]) and start + len(text) > last for start in starts)
        return
    tokens, lengths, _, _ = unpack(ids.astype("int64"), (ids != 0).sum(1))
    texts = [content(text, size) for text, size in zip(tokens, lengths, strict=True)]
    assert all(any(text in document for document in held) for text in texts)
    assert all(any(text in document for text in texts) for document in held)


def test_without_lineage_the_shards_are_the_same(corpus: Path, tmp_path: Path) -> None:
    build(config_for(tmp_path, corpus))
    before = Manifest.load(tmp_path).splits
    assert len(list(tmp_path.glob("lineage/*.parquet"))) == sum(len(split.shards) for split in before.values())
    shards = {"sequences_per_member": 64, "members_per_shard": 8, "lineage": False}
    build(config_for(tmp_path, corpus, shards=shards))
    assert Manifest.load(tmp_path).splits == before
    assert not list(tmp_path.glob("lineage/*.parquet"))
