"""Several weighted sources by one command: a folder each, one tokenizer, and a run that reads them by weight."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import yaml
from builds import digests, documents_of, kill_when
from typer.testing import CliRunner

from data_pipeline.build import build
from data_pipeline.command import app
from data_pipeline.corpora import build_mixture
from data_pipeline.endless import Source, sources_of
from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest
from data_pipeline.reader import ShardReader, Share
from data_pipeline.verify import verify_shards
from dualmask.config.load import ConfigError, load_build, load_run

ROOT = Path(__file__).parents[2]
NAMES = ("prose", "manuals")
EPOCHS = 2

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One source is a folder of texts, the other any lines beside it: the output lies there, too."""
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "texts").mkdir()
    names = sorted(topics)
    for name in names[::2]:
        (folder / "texts" / f"{name}.txt").write_text(topics[name], encoding="utf-8")
    lines = [json.dumps({"id": name, "text": topics[name]}) for name in names[1::2]]
    (folder / "manuals.jsonl").write_text("\n".join(lines))
    prose = {"name": "prose", "weight": 3, "source": {"kind": "text", "paths": [str(folder / "texts")]}}
    manuals = {"name": "manuals", "epochs": EPOCHS, "source": {"kind": "jsonl", "paths": [str(folder)]}}
    tree = {
        "output": str(folder / "mixed"),
        "sources": [prose, manuals],
        "split": {"dev": 0.1, "test": 0.1},
        "tokenizer": {"vocab_size": 600, "sample_megabytes": 0.2},
        "max_length": 32,
        "shards": {"sequences_per_member": 16, "members_per_shard": 8},
        "workers": 2,
    }
    (folder / "mixture.yaml").write_text(yaml.safe_dump(tree))
    return folder / "mixture.yaml"


@pytest.fixture(scope="module")
def built(config: Path) -> Path:
    """By the command, as a process with a Ray of its own."""
    process = start(config)
    said = process.communicate(timeout=400)[1]
    assert process.returncode == 0, said
    return config.parent / "mixed"


def start(config: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "launcher.command", "data", "build", "--config", str(config), *arguments]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def rows_of(reader: ShardReader, batches: int | None = None) -> list[bytes]:
    return [row.numpy().tobytes() for batch in islice(reader, batches) for row in batch.tokens]


def test_each_source_has_a_folder_with_the_tokenizer_of_all(built: Path) -> None:
    tokenizer = sha256(built / "tokenizer.model")
    for name in NAMES:
        manifest = Manifest.load(built / name)
        assert sha256(built / name / "tokenizer.model") == tokenizer
        assert (manifest.vocab_size, manifest.splits["train"].documents > 10) == (600, True)
        assert [bad for split in manifest.splits for bad in verify_shards(built / name, split)] == []
    ids = {name: {row["id"] for row in documents_of(built / name)} for name in NAMES}
    assert ids["prose"] <= {f"{name}.txt" for name in topics}
    assert ids["manuals"] <= set(topics)


def test_a_run_reads_them_by_weight(built: Path) -> None:
    run = load_run(ROOT / "configs" / "quickstart.yaml", [f"data.path={built}"])
    assert [(each.path, each.weight, each.epochs) for each in run.data.mixture] == [
        (built / "prose", 3.0, None),
        (built / "manuals", 1.0, EPOCHS),
    ]
    own = {name: set(rows_of(ShardReader(Source(built / name, epochs=1), Share(1)))) for name in NAMES}
    read = rows_of(ShardReader(sources_of(run.data), Share(8)), 50)
    assert set(read) <= own["prose"] | own["manuals"]
    share = sum(row in own["manuals"] for row in read) / len(read)
    assert share == pytest.approx(0.25, abs=0.07)


def test_a_folder_is_what_a_build_of_its_source_alone_would_be(config: Path, built: Path, tmp_path: Path) -> None:
    (prose, _) = load_build(config).corpora(built / "tokenizer.model")
    build(prose.model_copy(update={"output": tmp_path / "alone"}))
    assert digests(tmp_path / "alone") == digests(built / "prose")


def test_doing_it_again_does_nothing(config: Path, built: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it read the lines of text that it has written."""
    before = written(built)
    with caplog.at_level(logging.INFO):
        build_mixture(load_build(config))
    assert "nothing to do" in caplog.text
    assert before == written(built)


def written(folder: Path) -> dict[Path, int]:
    """When each file in the folders of the sources was written last."""
    return {path: path.stat().st_mtime_ns for name in NAMES for path in (folder / name).iterdir() if path.is_file()}


def test_a_killed_mixture_goes_on_and_ends_the_same(config: Path, built: Path, tmp_path: Path) -> None:
    lines = f"sources.1.source.paths=[{config.parent / 'manuals.jsonl'}]"
    changes = [f"output={tmp_path / 'out'}", lines]
    for moment in (".work/sample/*.json", "manuals/.work/rows/*.json"):
        process = start(config, *(part for change in changes for part in ("--set", change)))
        kill_when(process, tmp_path / "out", moment)
        assert not (tmp_path / "out" / "mixture.json").exists()
    build_mixture(load_build(config, changes))
    for name in NAMES:
        assert digests(tmp_path / "out" / name) == digests(built / name)


def test_another_weight_makes_another_tokenizer_of_the_same_documents(
    config: Path, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = [f"output={tmp_path / 'other'}", "sources.1.source.paths=[{}]".format(config.parent / "manuals.jsonl")]
    build_mixture(load_build(config, changes))
    assert {name: digests(tmp_path / "other" / name) for name in NAMES} == {
        name: digests(built / name) for name in NAMES
    }
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build_mixture(load_build(config, [*changes, "sources.1.weight=9"]))
    assert "share of manuals 0.25 → 0.75" in caplog.text
    assert "documents:" not in caplog.text.replace("documents,", "")
    assert sha256(tmp_path / "other" / "tokenizer.model") != sha256(built / "tokenizer.model")
    assert json.loads((tmp_path / "other" / "mixture.json").read_bytes())["sources"][1]["weight"] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sources.1.source.paths=[/nowhere/x.jsonl]", r"^manuals: source\.paths: .*/nowhere/x\.jsonl"),
        ("sources.1.source.text_field=body", r"^manuals: .*line 1: no text in source\.text_field='body'"),
        ("sources.1.weight=0.0001", r"weight 0\.0001 of source 1 is less than 0\.01% of all: raise it"),
        ("tokenizer.vocab_size=90000", r"^tokenizer\.vocab_size=90000 does not fit the text"),
    ],
)
def test_what_cannot_be_built_names_the_source(config: Path, tmp_path: Path, change: str, message: str) -> None:
    where = [f"output={tmp_path / 'out'}", f"sources.1.source.paths=[{config.parent / 'manuals.jsonl'}]"]
    with pytest.raises(ValueError, match=message) as raised:
        build_mixture(load_build(config, [*where, change]))
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "out" / "mixture.json").exists()


def test_one_corpus_and_a_mixture_do_not_share_an_output(config: Path, built: Path) -> None:
    (prose, _) = load_build(config).corpora(None)
    with pytest.raises(ValueError, match=r"mixed holds a mixture \(mixture\.json\): choose another output$"):
        build(prose.model_copy(update={"output": built}))
    with pytest.raises(ValueError, match=r"prose holds one corpus \(manifest\.json\): choose another output$"):
        build_mixture(load_build(config, [f"output={built / 'prose'}"]))


def test_a_mixture_is_no_folder_of_shards(built: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["stats", str(built)])
    assert "it holds a mixture: give one of the folders in it" in str(refused.exception)
    (tmp_path / "mixture.json").write_text('{"sources": [{"name": "../elsewhere"}]}')
    with pytest.raises(ConfigError, match=r"mixture\.json is damaged \(.*pattern.*run dualmask data build again"):
        load_run(ROOT / "configs" / "quickstart.yaml", [f"data.path={tmp_path}"])


def test_the_page_leads_to_those_of_the_sources(built: Path) -> None:
    page = (built / "report.html").read_text(encoding="utf-8")
    for name, share in zip(NAMES, ("75 %", "25 %"), strict=True):
        assert f'<a href="{name}/report.html">{name}</a>' in page
        assert (built / name / "report.html").is_file()
        assert f"{Manifest.load(built / name).splits['train'].rows:,}" in page
        assert share in page
    assert f"A run reads manuals at most {EPOCHS} times." in page
    assert "<script" not in page
