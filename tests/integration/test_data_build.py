"""The real pipeline on a small real corpus: Python's language reference as a folder of text files."""

from __future__ import annotations

import contextlib
import json
import logging
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builds import BOILERPLATE, config_for, digests, documents_of, texts_of
from local_hub import local_hub
from tiny_bpe import PIECES, make_tokenizer_json

from data_pipeline import packing
from data_pipeline.build import build
from data_pipeline.crop import Crop
from data_pipeline.endless import Source
from data_pipeline.manifest import Manifest
from data_pipeline.reader import ShardReader, Share, evaluation_batches
from data_pipeline.verify import verify_shards
from data_pipeline.vocabulary import VocabularyError
from dualmask.core.tokenizer import SPECIAL_IDS, Tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


def test_manifest_tells_the_truth(built: Path) -> None:
    manifest = Manifest.load(built)
    tokenizer = Tokenizer(built / "tokenizer.model")
    assert (manifest.tokenizer_digest, manifest.vocab_size, manifest.max_length) == (tokenizer.digest, 600, 32)
    assert len(manifest.splits["train"].shards) > 2
    for name, split in manifest.splits.items():
        assert verify_shards(built, name) == []
        batches = list(evaluation_batches(built, name, batch_size=50))
        assert sum(len(batch.length) for batch in batches) == split.rows
        assert sum(int((batch.length - 2).sum()) for batch in batches) == split.tokens
    assert {path.name for path in built.rglob("*.npy")} == {"shards.npy", "members.npy"}  # the manifest's tables
    assert not [path for path in built.rglob("*") if "partial" in path.name]


def test_texts_of_dev_and_test_are_their_rows(built: Path) -> None:
    tokenizer = Tokenizer(built / "tokenizer.model")
    for split in ("dev", "test"):
        texts = texts_of(built, split)
        rows = [
            tokenizer.decode(row[:length].tolist())
            for batch in evaluation_batches(built, split, batch_size=64)
            for row, length in zip(batch.tokens, batch.length, strict=True)
        ]
        assert texts == rows
        assert "\ufffd" not in "".join(texts)


def test_no_paragraph_is_in_two_places(built: Path) -> None:
    rows = documents_of(built)
    paragraphs = [paragraph.lower() for row in rows for paragraph in row["text"].split("\n")]
    assert len(paragraphs) == len(set(paragraphs))
    assert paragraphs.count(BOILERPLATE.lower()) == 1
    assert len({row["split"] for row in rows}) == 3
    assert {"original.txt", "revised.txt"} & {row["id"] for row in rows} == {"original.txt"}


def test_train_text_is_all_there(built: Path) -> None:
    rows = documents_of(built)
    tokenizer = Tokenizer(built / "tokenizer.model")
    expected = sum(len(tokenizer.encode(row["text"])) + 1 for row in rows if row["split"] == "train")
    assert 0 <= expected - Manifest.load(built).splits["train"].tokens < 30


def test_two_builds_are_equal_and_workers_make_no_difference(built: Path, corpus: Path, tmp_path: Path) -> None:
    other = build(config_for(tmp_path, corpus, workers=1))
    assert digests(tmp_path) == digests(built)
    assert other == Manifest.load(built)


def test_a_split_of_several_buckets_has_the_same_documents(
    built: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "BUCKET_TOKENS", 9000)
    for name, workers in (("one", 1), ("two", 2)):
        build(config_for(tmp_path / name, corpus, workers=workers))
    one, two = Manifest.load(tmp_path / "one"), Manifest.load(built)
    assert one == Manifest.load(tmp_path / "two")
    assert [shard.file for shard in one.splits["train"].shards] == [
        f"train-{number:06d}.tar" for number in range(len(one.splits["train"].shards))
    ]
    assert sorted(texts_of(tmp_path / "one", "dev")) == sorted(texts_of(built, "dev"))
    counts = json.loads((tmp_path / "one" / "report.json").read_bytes())["rows"]
    lost = two.splits["train"].tokens - one.splits["train"].tokens
    assert (
        0 <= lost <= counts["tokens left over"] < 30 * len(one.splits["train"].shards) + 8 * one.splits["dev"].documents
    )


def test_the_report_accounts_for_every_document_and_token(built: Path) -> None:
    counts = json.loads((built / "report.json").read_bytes())["documents"]
    dropped = sum(
        count
        for reason, count in counts.items()
        if reason.partition(" documents")[0] in ("duplicate", "near-duplicate")
    )
    dropped += sum(count for reason, count in counts.items() if reason.startswith("documents below"))
    assert counts["documents read"] == len(topics) + 2 == dropped + counts["documents kept"]
    assert counts["paragraphs seen before"] >= len(topics) - 1
    assert counts["documents kept"] == len(documents_of(built))
    rows, splits = json.loads((built / "report.json").read_bytes())["rows"], Manifest.load(built).splits
    assert rows["tokens in rows"] == sum(split.tokens for split in splits.values())
    assert rows["newlines between documents"] == splits["train"].documents


def test_a_small_sample_of_a_large_corpus_trains_a_tokenizer(corpus: Path, tmp_path: Path) -> None:
    """The sample is chosen by a hash of its own: it is not what the dev and test parts have left of their hash."""
    build(config_for(tmp_path, corpus, tokenizer={"vocab_size": 330, "sample_megabytes": 0.01}))
    assert Manifest.load(tmp_path).vocab_size == 330


def test_a_sample_that_is_too_small_is_named(corpus: Path, tmp_path: Path) -> None:
    config = config_for(tmp_path, corpus, tokenizer={"vocab_size": 3000, "sample_megabytes": 0.02})
    with pytest.raises(VocabularyError, match=r"vocab_size=3000 .*or raise tokenizer\.sample_megabytes=0\.02$"):
        build(config)


def test_train_documents_that_hold_an_evaluation_text_are_dropped(built: Path, corpus: Path, tmp_path: Path) -> None:
    train = [row["text"] for row in documents_of(built) if row["split"] == "train"]
    held = [" ".join(text.split()[5:25]) for text in train[:3]]
    (tmp_path / "benchmark.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in held))
    decontaminate = {"paths": [str(tmp_path / "benchmark.jsonl")], "ngram": 20}
    build(config_for(tmp_path / "out", corpus, decontaminate=decontaminate))
    left = " ".join(" ".join(row["text"].split()) for row in documents_of(tmp_path / "out") if row["split"] == "train")
    assert not [text for text in held if text in left]
    counts = json.loads((tmp_path / "out" / "report.json").read_bytes())["documents"]
    assert counts["documents that share words with evaluation files"] == 3


def test_lost_blocks_are_made_again(built: Path, corpus: Path) -> None:
    before = digests(built)
    for block in built.glob(".work/documents/*.parquet"):
        block.unlink()
    (built / "train-000000.tar").unlink()
    build(config_for(built, corpus))
    assert digests(built) == before


def test_doing_it_again_does_nothing(built: Path, corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = written(built)
    with caplog.at_level(logging.INFO):
        build(config_for(built, corpus))
    assert "nothing to do" in caplog.text
    assert before == written(built)


def written(folder: Path) -> dict[Path, int]:
    """When each file was written last; the lock says who holds it."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_lost_shard_is_made_again_and_no_other(built: Path, corpus: Path) -> None:
    before = digests(built)
    (built / "train-000001.tar").unlink()
    kept = (built / "train-000000.tar").stat().st_mtime_ns
    build(config_for(built, corpus))
    assert digests(built) == before
    assert verify_shards(built, "train") == []
    assert (built / "train-000000.tar").stat().st_mtime_ns == kept


def test_a_changed_key_is_named_and_only_what_follows_is_rebuilt(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(config_for(tmp_path, corpus))
    old_shards = set(digests(tmp_path))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build(config_for(tmp_path, corpus, max_length=64))
    assert "rows: rebuilding, changed: max_length 32 → 64" in caplog.text
    assert "documents:" not in caplog.text.replace("documents,", "")
    assert "tokenizer:" not in caplog.text
    assert {path.name for path in tmp_path.glob("*.tar")} == set(digests(tmp_path)) < old_shards


def test_compressed_json_lines_with_splits_of_their_own(tmp_path: Path) -> None:
    names = [name for name in sorted(topics) if len(topics[name]) > 1500]
    parts = {"train": names[:30], "dev": names[30:40], "test": names[25:30] + names[40:45]}
    for split, members in parts.items():
        lines = [json.dumps({"id": name, "text": topics[name]}) for name in members]
        (tmp_path / f"{split}.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    source = {
        "kind": "jsonl",
        "paths": [str(tmp_path / "train.jsonl.xz")],
        "dev_paths": [str(tmp_path / "dev*.xz")],
        "test_paths": [str(tmp_path / "test.jsonl.xz")],
    }
    build(config_for(tmp_path / "out", tmp_path, source=source, clean={"style": "plain"}))
    rows = documents_of(tmp_path / "out")
    ids = {split: {row["id"] for row in rows if row["split"] == split} for split in parts}
    assert ids["test"] >= set(names[25:30])  # what train and test share is the test's
    assert ids["dev"]
    assert ids["train"]
    for split in parts:
        assert ids[split] <= set(parts[split]) - (ids["test"] if split == "train" else set())


def test_reuse_of_a_tokenizer(built: Path, corpus: Path, tmp_path: Path) -> None:
    build(config_for(tmp_path, corpus, tokenizer={"model": str(built / "tokenizer.model")}))
    assert digests(tmp_path) == digests(built)


def test_a_data_set_of_the_hub_in_the_pieces_of_a_model_there(
    tmp_path: Path, hub_client: Callable[[str], None]
) -> None:
    """Articles whose lines are rows of parquet files, byte-level BPE by name: built, read back, known to be done."""
    names = sorted(topics)
    for split, part in {"train": names[::2], "test": names[1::2]}.items():
        lines = [line for name in part for line in (f" = {name} = ", *topics[name].split("\n"))]
        pq.write_table(pa.table({"text": lines}), tmp_path / f"{split}.parquet", row_group_size=500)
    data = {f"raw/{path.name}": path.read_bytes() for path in tmp_path.glob("*.parquet")}
    bpe = (make_tokenizer_json(tmp_path / "bpe") / "tokenizer.json").read_bytes()
    source = {
        "kind": "huggingface",
        "repository": "Salesforce/wikitext",
        "paths": ["raw/train*.parquet"],
        "test_paths": ["raw/test*.parquet"],
        "document_start": "^ = .* = $",
    }
    tokenizer = {"name": "openai-community/gpt2", "vocab_size": 600}
    config = config_for(tmp_path / "out", tmp_path, source=source, tokenizer=tokenizer, clean={"style": "plain"})
    repositories = {"datasets/Salesforce/wikitext": data, "models/openai-community/gpt2": {"tokenizer.json": bpe}}
    with local_hub(repositories) as hub:
        hub_client(hub.address)
        manifest = build(config)
    assert build(config) == manifest  # without the hub: from its client's cache
    assert manifest.source == "huggingface: Salesforce/wikitext (raw/train*.parquet)"
    assert manifest.tokenizer == "openai-community/gpt2, of the Hugging Face hub"
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == bpe
    pieces = Tokenizer(tmp_path / "out" / "tokenizer.model")
    assert manifest.vocab_size == pieces.vocab_size == PIECES + len(SPECIAL_IDS)
    rows = documents_of(tmp_path / "out")
    assert all(row["text"].startswith(" = ") for row in rows)
    text = "\n".join(row["text"] for row in rows if row["split"] == "test")
    (batch, *_) = evaluation_batches(tmp_path / "out", "test", batch_size=16)
    for row, length in zip(batch.tokens, batch.length, strict=True):
        assert pieces.decode(row[:length].tolist()) in text


def test_webdataset_opens_the_shards(built: Path) -> None:
    script = (
        "import io, sys, numpy, webdataset\n"
        "def ids(content): return numpy.load(io.BytesIO(content), allow_pickle=False)\n"
        "data = webdataset.WebDataset(sys.argv[1], shardshuffle=False, empty_check=False)\n"
        "print(sum(len(ids(sample['tokens.npy'])) for sample in data))\n"
    )
    shards = Manifest.load(built).splits["train"].shards
    url = str(built / f"train-{{000000..{len(shards) - 1:06d}}}.tar")
    done = subprocess.run(
        [sys.executable, "-c", script, url], env=os.environ | {"WDS_SECURE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == Manifest.load(built).splits["train"].rows


def test_training_reader_on_built_data(built: Path) -> None:
    reader = ShardReader(Source(built, epochs=1), Share(8), Crop(0.2))
    assert sum(1 for _ in reader) == Manifest.load(built).splits["train"].rows // 8
    assert reader.quarantined == 0


def test_documents_that_share_rows_stay_whole(corpus: Path, tmp_path: Path) -> None:
    manifest = build(config_for(tmp_path, corpus, packing="documents"))
    tokenizer, train = Tokenizer(tmp_path / "tokenizer.model"), manifest.splits["train"]
    rows = documents_of(tmp_path)
    documents = [tokenizer.encode(row["text"]) for row in rows if row["split"] == "train"]
    batches = list(ShardReader(Source(tmp_path, epochs=1), Share(1)))
    texts = [text[1 : size - 1] for batch in batches for text, size in zip(batch.tokens, batch.length, strict=True)]
    whole = [f",{','.join(map(str, ids))}," for ids in documents]
    for text in texts:  # in one document, and not in pieces of two
        assert any(f",{','.join(map(str, text.tolist()))}," in ids for ids in whole)
    assert 0 <= sum(map(len, documents)) - sum(map(len, texts)) < 8 * len(documents)  # ends that are too short
    assert (len(batches), sum(map(len, texts))) == (train.rows, train.tokens)
    assert len(texts) > train.rows
    assert sum(len(text) + 2 for text in texts) > 0.95 * 32 * train.rows


def test_ray_listens_on_the_loopback_interface_only() -> None:
    addresses = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray's idle workers end when they like
            listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            addresses |= {connection.laddr.ip for connection in listening}
    assert addresses  # Ray's own servers are among the children
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
