from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_folders import write_folder
from typer.testing import CliRunner

from data_pipeline.command import app
from data_pipeline.manifest import ManifestError
from data_pipeline.trace import Origin, trace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of shard 1 that hold parts of two documents; the others have no lineage."""
    write_folder(tmp_path)
    (tmp_path / "lineage").mkdir()
    records = [
        {"row": row, "file": f"part-{part}.jsonl", "start": row * 100, "stop": row * 100 + 50}
        for row in range(40)
        for part in range(2)
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "lineage" / "train-000001.parquet")
    return tmp_path


def test_a_row_names_its_documents(folder: Path) -> None:
    assert trace(f"{folder}/train-000001.tar:7") == [Origin(f"part-{part}.jsonl", 700, 750) for part in range(2)]
    result = CliRunner().invoke(app, ["trace", f"{folder}/train-000001.tar:7"])
    assert result.stdout.splitlines() == ["part-0.jsonl 700 750", "part-1.jsonl 700 750"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("train-000001.tar", "give a shard and a row"),
        ("train-000001.tar:x", "give a shard and a row"),
        ("train-000001.tar:40", "has the rows 0 to 39"),
        ("train-000009.tar:0", "is no shard of"),
        ("../train-000001.tar:0", "no data at"),
        ("train-000000.tar:0", "was built without lineage"),
        ("dev-000000.tar:0", "no split 'dev'"),
    ],
)
def test_what_has_no_origin_is_one_line(folder: Path, place: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said) as error:
        trace(f"{folder}/{place}")
    assert "\n" not in str(error.value)


def test_damaged_lineage_is_one_line(folder: Path) -> None:
    (folder / "lineage" / "train-000001.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(ManifestError, match=r"train-000001\.parquet is damaged"):
        trace(f"{folder}/train-000001.tar:7")
