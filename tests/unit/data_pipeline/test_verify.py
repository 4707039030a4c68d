import json
from pathlib import Path

import pytest
from shard_folders import write_folder

from data_pipeline.endless import Place, Source
from data_pipeline.manifest import ManifestError
from data_pipeline.reader import Cursor, ShardReader, Share
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
