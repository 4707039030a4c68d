"""``dualmask data stats | inspect | repair`` and the page, on a folder that a real build has made.

Each build starts a Ray of its own, whose processes work where the build was started: paths are relative here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from typer.testing import CliRunner

from data_pipeline.build import build
from data_pipeline.command import app
from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest
from data_pipeline.repair import RepairError, repair
from dualmask.config.data import DataBuildConfig

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<script>evil()</script>"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` beside the ``corpus.jsonl`` that it was made from, by a configuration of relative paths."""
    folder = tmp_path_factory.mktemp("built")
    near = (f"near{EVIL}", topics["typesseq"].replace("tuple", "tupel", 1))
    texts = [*sorted(topics.items()), near, ("short", "Few.")]
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build(
            DataBuildConfig.model_validate(
                {
                    "output": "data",
                    "source": {"kind": "jsonl", "paths": ["corpus.jsonl"]},
                    "clean": {"style": "plain"},
                    "dedup": {"paragraphs": False},
                    "split": {"dev": 0.1, "test": 0.1},
                    "tokenizer": {"vocab_size": 600},
                    "max_length": 48,
                    "packing": "documents",
                    "shards": {"sequences_per_member": 64, "members_per_shard": 8},
                    "workers": 2,
                }
            )
        )
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy whose record leads to a copy of the corpus."""
    copy = shutil.copytree(built, tmp_path / "copy")
    record = json.loads((copy / "data" / "built.json").read_text())
    (copy / "data" / "built.json").write_text(json.dumps(record | {"started_in": str(copy)}))
    shutil.copystat(built / "corpus.jsonl", copy / "corpus.jsonl")
    return copy / "data"


def state(folder: Path) -> dict[str, str]:
    files = [*folder.glob("*.tar"), *folder.glob("lineage/*"), folder / "manifest.json", folder / "tokenizer.model"]
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def damage(folder: Path) -> list[str]:
    """One byte of a shard changed, another one away with its lineage."""
    content = bytearray((folder / "train-000001.tar").read_bytes())
    content[-20000] ^= 255
    (folder / "train-000001.tar").write_bytes(content)
    (folder / "dev-000000.tar").unlink()
    (folder / "lineage" / "dev-000000.parquet").unlink()
    return ["train-000001.tar", "dev-000000.tar"]


def test_bad_shards_are_cut_again_from_what_the_build_left(folder: Path) -> None:
    before = state(folder)
    assert repair(folder) == []
    bad = damage(folder)
    (folder.parent / "corpus.jsonl").unlink()  # it is not needed
    assert CliRunner().invoke(app, ["verify", str(folder)]).exit_code == 1
    assert repair(folder) == bad
    assert state(folder) == before
    assert CliRunner().invoke(app, ["verify", str(folder), "--full"]).exit_code == 0
    assert not (folder / ".work" / "again").exists()


@pytest.mark.parametrize("left", ["nothing", "damaged documents"])
def test_bad_shards_are_built_again_from_the_sources(folder: Path, left: str) -> None:
    before = state(folder)
    bad = damage(folder)
    if left == "nothing":
        shutil.rmtree(folder / ".work")
    else:
        for file in (folder / ".work" / "documents").glob("*.parquet"):
            file.write_bytes(b"PAR1 and nothing else PAR1")
    assert repair(folder) == bad
    assert state(folder) == before


def test_what_cannot_be_as_it_was_changes_nothing(folder: Path) -> None:
    damage(folder)
    shutil.rmtree(folder / ".work")
    before = state(folder)
    with (folder.parent / "corpus.jsonl").open("a") as corpus:
        corpus.write("\n" + json.dumps({"id": "more", "text": "A sentence that was not there. " * 50}))
    with pytest.raises(
        RepairError, match=r"train-000001\.tar would not be what it was.*bring back the sources"
    ) as error:
        repair(folder)
    (folder.parent / "corpus.jsonl").unlink()
    with pytest.raises(RepairError, match=r"cannot be built again: source\.paths: ") as gone:
        repair(folder)
    (folder / "built.json").unlink()
    with pytest.raises(RepairError, match=r"built\.json, which records how it was built, is missing") as lost:
        repair(folder)
    assert all("\n" not in str(raised.value) for raised in (error, gone, lost))
    assert state(folder) == before


def test_stats_are_those_of_manifest_and_report(built: Path) -> None:
    said = CliRunner().invoke(app, ["stats", str(built / "data"), "--json"])
    found, manifest = json.loads(said.stdout), Manifest.load(built / "data")
    for name, info in manifest.splits.items():
        split = found["splits"][name]
        assert (split["documents"], split["tokens"], split["rows"]) == (info.documents, info.tokens, info.rows)
        assert sum(split["lengths"].values()) == info.documents
    reasons = ("documents below clean.min_words", "near-duplicate documents", "duplicate documents")
    assert found["dropped"] == dict.fromkeys(reasons, 1)
    lines = CliRunner().invoke(app, ["stats", str(built / "data")]).stdout.splitlines()
    assert lines[0] == "jsonl: corpus.jsonl"
    assert f"{manifest.splits['train'].tokens:,}" in lines[3].split()
    assert sorted(line.split()[1] for line in lines[-3:]) == ["documents", "duplicate", "near-duplicate"]


def test_inspect_shows_rows_and_where_they_come_from(built: Path) -> None:
    said = CliRunner().invoke(app, ["inspect", str(built / "data"), "--split", "dev", "--rows", "2"])
    first, origin, text, *_ = said.stdout.splitlines()
    assert first.startswith("dev-000000.tar:0  ")
    assert said.stdout.count("dev-000000.tar:") == 2
    file, start, stop = origin.removeprefix("  from ").split()
    content = (built / file).read_bytes()[int(start) : int(stop)]
    assert text.removeprefix("  | ") in json.loads(content)["text"]
    refused = CliRunner().invoke(app, ["inspect", str(built / "data"), "--split", "nonsense"])
    assert "no split 'nonsense'" in str(refused.exception)


def test_the_report_knows_scripts_pieces_and_groups(built: Path) -> None:
    report = json.loads((built / "data" / "report.json").read_bytes())
    assert report["scripts"]["LATIN"]["documents"] == report["documents"]["documents kept"]
    (group,) = report["groups"]
    assert (group["from"], group["to"], group["groups"], group["documents"]) == (2, 2, 1, 2)
    assert "tuple" in group["pair"][0]["text"]
    assert "tupel" in group["pair"][1]["text"]
    assert {pair["id"] for pair in group["pair"]} == {f"near{EVIL}", "typesseq"}
    counts = [count for _, count in report["pieces"]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) < report["rows"]["tokens of documents"]
    assert next(iter(report["seconds"])) == "read"
    assert {"pairs", "documents", "tokens", "rows", "shards"} < set(report["seconds"])


# --- the page --------------------------------------------------------------------------------------------------------


FRAME = """<body><iframe style="width: {width}px; height: 4000px; border: 0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, style = (element) => frame.contentWindow.getComputedStyle(element);
  const tracks = [...page.querySelectorAll("#fates .track")];
  document.body.dataset.found = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    scripts: page.scripts.length,
    background: style(page.body).backgroundColor,
    shares: tracks.map((track) => track.firstElementChild.offsetWidth / track.offsetWidth),
    heights: Object.fromEntries([...page.querySelectorAll("section")].map((part) => [part.id, part.offsetHeight])),
    text: page.body.innerText,
  }});
}};
frame.srcdoc = {page};
</script></body>"""


def opened(page: str, folder: Path, width: int, *options: str) -> dict[str, Any]:
    """What a browser makes of the page in a frame of so many pixels."""
    file = folder / "frame.html"
    content = json.dumps(page).replace("</", "<\\/")
    file.write_text(FRAME.format(width=width, page=content), encoding="utf-8")
    usual = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}")
    arguments = [str(CHROMIUM), *usual, *options, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()]
    done = subprocess.run(arguments, capture_output=True, timeout=300, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout.decode())
    assert found is not None
    return dict(json.loads(unescape(found[1])))


@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is on the PATH")
def test_the_page_in_a_browser(built: Path, tmp_path: Path) -> None:
    page = (built / "data" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=|https?:|@import|url\(|<script", page.partition("<main>")[0])
    desktop, phone = (opened(page, tmp_path, width) for width in (1200, 390))
    for width, seen in ((1200, desktop), (390, phone)):
        assert (seen["width"], seen["scripts"]) == (width, 0)
        assert min(seen["heights"].values()) > 60
    kept, *dropped = desktop["shares"]
    assert kept == 1.0
    assert len(dropped) == 3
    assert max(dropped) < 0.1
    assert {"splits", "fates", "lengths", "scripts", "pieces", "groups", "examples", "seconds"} == set(phone["heights"])
    for words in (f"Dropped: near{EVIL}", "tupel", "near-duplicate documents", "train-000000.tar:0"):
        assert words in phone["text"]
    dark = opened(page, tmp_path, 390, "--blink-settings=preferredColorScheme=0")
    assert {desktop["background"], dark["background"]} == {"rgb(251, 250, 247)", "rgb(20, 22, 26)"}
