"""The same records as files of every kind, packed in every way."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import sources
from data_pipeline.sources import Document, Skipped
from dualmask.config.data import SourceConfig

Records = list[dict[str, str]]

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


def jsonl(records: Records) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def csv_of(records: Records) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "text"])
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def parquet(records: Records) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), content, row_group_size=20, write_page_checksum=True)
    return content.getvalue()


def arrow_stream(records: Records) -> bytes:
    """As ``save_to_disk`` of Hugging Face's datasets writes."""
    content, table = io.BytesIO(), pa.Table.from_pylist(records)
    with pa.ipc.new_stream(content, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return content.getvalue()


def arrow_file(records: Records) -> bytes:
    content, table = io.BytesIO(), pa.Table.from_pylist(records)
    with pa.ipc.new_file(content, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return content.getvalue()


def tar(records: Records, extension: str = "txt") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for record in records:
            text = record["text"].encode() if extension == "txt" else json.dumps(record).encode()
            for name, data in ((f"{record['id']}.{extension}", text), (f"{record['id']}.jpg", b"an image")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def tar_of_json(records: Records) -> bytes:
    return tar(records, "json")


KINDS: dict[str, tuple[str, str, Callable[[Records], bytes]]] = {
    "jsonl": ("jsonl", "x.jsonl", jsonl),
    "csv": ("csv", "x.csv", csv_of),
    "parquet": ("parquet", "x.parquet", parquet),
    "arrow stream": ("arrow", "x.arrow", arrow_stream),
    "arrow file": ("arrow", "x.feather", arrow_file),
    "tar of txt": ("webdataset", "x.tar", tar),
    "tar of json": ("webdataset", "x.tar", tar_of_json),
}
"""name → (source.kind, file, how it is written)"""


def source_of(kind: str, path: Path | str, **keys: object) -> SourceConfig:
    return SourceConfig.model_validate({"kind": kind, "paths": [str(path)], **keys})


def read_all(source: SourceConfig) -> tuple[list[Document], list[Skipped]]:
    skipped: list[Skipped] = []
    documents = [doc for unit in sources.units(source) for doc in sources.read(unit, source, skipped.append)]
    return documents, skipped
