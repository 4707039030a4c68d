import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shard_folders import write_folder
from typer.testing import CliRunner

from data_pipeline import verify
from data_pipeline.command import app
from data_pipeline.endless import Place, Source
from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest, ManifestError
from data_pipeline.reader import Cursor, ShardReader, Share
from data_pipeline.tables import Shards
from data_pipeline.verify import BadShard, record_quarantine, verify_shards


def damage(folder: Path) -> None:
    """Shard 0 flipped, 1 truncated, 2 missing, 9 foreign; 3 is well."""
    flipped = bytearray((folder / "train-000000.tar").read_bytes())
    flipped[900] ^= 1
    (folder / "train-000000.tar").write_bytes(flipped)
    (folder / "train-000001.tar").write_bytes((folder / "train-000001.tar").read_bytes()[:-600])
    (folder / "train-000002.tar").unlink()
    (folder / "train-000009.tar").write_bytes(b"whose is this")


def test_whole_folder_has_no_bad_shard(tmp_path: Path) -> None:
    assert verify_shards(write_folder(tmp_path), "train") == []


def test_bad_shards_are_named_with_the_reason(tmp_path: Path) -> None:
    damage(write_folder(tmp_path))
    reasons = {shard.file: shard.reason for shard in verify_shards(tmp_path, "train")}
    assert sorted(reasons) == [f"train-00000{number}.tar" for number in (0, 1, 2, 9)]
    assert "SHA-256" in reasons["train-000000.tar"]
    assert "bytes" in reasons["train-000001.tar"]
    assert reasons["train-000002.tar"] == "missing"
    assert "foreign" in reasons["train-000009.tar"]
    assert (tmp_path / "train-000009.tar").exists()  # moved nowhere
    sizes = [shard.file for shard in verify_shards(tmp_path, "train", "size")]
    assert sizes == ["train-000001.tar", "train-000002.tar", "train-000009.tar"]


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards whose digest is taken."""
    names = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(verify, "sha256", counted)
    return names


def test_only_what_has_changed_is_read_again(tmp_path: Path, read_files: list[str]) -> None:
    folder = write_folder(tmp_path / "data")
    whole = [f"train-00000{number}.tar" for number in range(4)]
    assert verify_shards(folder, "train") == []
    assert read_files == whole
    read_files.clear()
    assert [verify_shards(folder, "train", "digest", part, 2) for part in (0, 1)] == [[], []]
    assert read_files == []
    assert verify_shards(folder, "train", "full") == []
    assert read_files == whole
    read_files.clear()
    flip(folder / whole[1])  # size stays
    shutil.copy2(folder / whole[2], folder / "copy")  # with its times
    (folder / "copy").replace(folder / whole[2])
    assert [shard.file for shard in verify_shards(folder, "train")] == [whole[1]]
    assert read_files == whole[1:3]
    read_files.clear()
    assert [shard.file for shard in verify_shards(folder, "train")] == [whole[1]], "what is bad is read each time"
    assert read_files == [whole[1]]


def test_another_manifest_for_the_same_files(tmp_path: Path, read_files: list[str]) -> None:
    folder = write_folder(tmp_path)
    verify_shards(folder, "train")
    read_files.clear()
    manifest = Manifest.load(folder)
    split = manifest.split("train")
    columns = split.shards.columns.copy()
    columns["sha256"][2] ^= 1
    changed = split.model_copy(update={"shards": Shards("train", columns, split.shards.members)})
    manifest.model_copy(update={"splits": {"train": changed}}).save(folder)
    assert [shard.file for shard in verify_shards(folder, "train")] == ["train-000002.tar"]
    assert read_files == ["train-000002.tar"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"train-000000.tar": 3}', bytes(200)])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, content: bytes, read_files: list[str]) -> None:
    (write_folder(tmp_path) / verify.VERIFIED_FILE).write_bytes(content)
    assert verify_shards(tmp_path, "train") == []
    assert len(read_files) == 4


def test_a_folder_that_cannot_be_written_to_is_remembered_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
) -> None:
    folder = write_folder(tmp_path / "data")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(verify, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)  # root may write anywhere
    for _ in range(2):
        assert verify_shards(folder, "train") == []
    assert len(read_files) == 4
    assert sorted(folder.iterdir()) == before


def test_ranks_remember_together(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=900, per_member=4, members=5)
    script = "import sys; from data_pipeline.verify import verify_shards as v; v(sys.argv[1], 'train', 'digest', %d, 4)"
    ranks = [subprocess.Popen([sys.executable, "-c", script % rank, str(folder)]) for rank in range(4)]
    assert [rank.wait() for rank in ranks] == [0] * 4
    assert len(verify.recall(folder)) == 45


def test_the_command_lists_what_is_bad(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(folder)]).exit_code == 0
    flip(folder / "train-000001.tar")
    result = runner.invoke(app, ["verify", str(folder), "--full"])
    assert result.exit_code == 1
    assert "train-000001.tar: SHA-256 differs" in result.stdout


def flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[900] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_the_whole(tmp_path: Path, parts: int) -> None:
    damage(write_folder(tmp_path))
    bad_shards = [shard for part in range(parts) for shard in verify_shards(tmp_path, "train", "digest", part, parts)]
    assert sorted(bad_shards, key=str) == sorted(verify_shards(tmp_path, "train"), key=str)


def test_excluded_shards_are_left_out_and_the_rest_comes_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=160)
    damage(folder)
    exclude = [shard.file for shard in verify_shards(folder, "train")]
    reader = ShardReader(Source(folder, epochs=1, exclude=exclude), Share(8))
    rows = [tuple(row) for batch in reader for row in batch.tokens.tolist()]
    assert len(rows) == len(set(rows)) == 40
    assert reader.quarantined == 0
    assert reader.cursor.sources[0].quarantined == tuple(sorted(exclude))


def test_a_shard_excluded_in_mid_epoch_does_not_move_the_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=160)
    healthy = list(ShardReader(Source(folder, epochs=1), Share(8)))
    cursor = Cursor(position=40, sources=(Place(consumed=40),))
    resumed = ShardReader(Source(folder, epochs=2, exclude=["train-000002.tar"]), Share(8), cursor=cursor)
    rows = [row for batch in resumed for row in batch.tokens.tolist()]
    before = [row for batch in healthy[5:] for row in batch.tokens.tolist()]
    assert 0 < sum(was != now for was, now in zip(before, rows, strict=False)) <= 40
    assert len({tuple(row) for row in rows[120:]}) == len(rows[120:]) == 120  # the next epoch is without the shard


def test_nothing_good_is_left(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, rows=80)
    with pytest.raises(ManifestError, match="no good shard left"):
        ShardReader(Source(folder, exclude=["train-000000.tar", "train-000001.tar"]), Share(8))
    for shard in folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(ManifestError, match="no good shard left"):
        next(ShardReader(folder, Share(8)))


def test_quarantine_file_names_each_once(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.jsonl"
    record_quarantine(file, [BadShard("a", "missing"), BadShard("b", "missing"), BadShard("a", "missing")])
    record_quarantine(file, [BadShard("a", "missing"), BadShard("a", "truncated")])
    bad_shards = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["file"], line["reason"]) for line in bad_shards] == [
        ("a", "missing"),
        ("b", "missing"),
        ("a", "truncated"),
    ]


def test_no_manifest_and_no_split(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="run dualmask data build"):
        verify_shards(tmp_path, "train")
    with pytest.raises(ManifestError, match="no split 'dev', only train"):
        verify_shards(write_folder(tmp_path), "dev")
