"""What goes wrong while data is built: bad input, kills at any moment, places that cannot be written to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pytest
from builds import config_for, digests, kill, kill_when, wait_for

from data_pipeline.build import BuildError, build
from data_pipeline.files import sha256
from data_pipeline.sources import SourceError
from data_pipeline.vocabulary import VocabularyError
from dualmask.config.data import DataBuildConfig

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"body": "x"}', SourceError, r"line 1: no text in source\.text_field='text'; the line has: body"),
        ('{"text": "x"}', SourceError, "no training text is left"),
        (json.dumps({"text": "Only a little text. " * 9}), VocabularyError, r"tokenizer\.vocab_size=600 does not fit"),
    ],
)
def test_unusable_text_is_one_clear_line(tmp_path: Path, content: str, error: type[Exception], message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    source = {"kind": "jsonl", "paths": [str(tmp_path / "x.jsonl")]}
    with pytest.raises(error, match=message) as raised:
        build(config_for(tmp_path / "out", tmp_path, source=source, split={"dev": 0, "test": 0}))
    assert len(str(raised.value).splitlines()) == 1


def test_what_cannot_be_read_is_listed_or_too_much(corpus: Path, tmp_path: Path) -> None:
    good = [json.dumps({"id": name, "text": text}) for name, text in sorted(topics.items())]
    (tmp_path / "x.jsonl").write_text("\n".join([*good[:5], "nonsense", *good[5:], '{"text": null}']))
    source = {"kind": "jsonl", "paths": [str(tmp_path / "x.jsonl")], "on_error": "skip"}
    build(config_for(tmp_path / "out", corpus, source=source))
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [(entry["file"], entry["place"], entry["records"]) for entry in listed] == [
        (str(tmp_path / "x.jsonl"), "line 6", 1),
        (str(tmp_path / "x.jsonl"), f"line {len(good) + 2}", 1),
    ]
    assert all(entry["reason"] for entry in listed)
    with pytest.raises(SourceError, match=r"more than source\.max_errors=1 records cannot be read, the last: .*line"):
        build(config_for(tmp_path / "out", corpus, source=source | {"max_errors": 1}))


def test_a_hub_that_cannot_be_reached_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    """The true client in a process of its own, told where to go by its variable of the environment."""
    root = Path(__file__).parents[2]
    arguments = ["--config", "configs/data/wikitext.yaml", "--set", f"output={tmp_path / 'out'}"]
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "launcher.command", "data", "build", *arguments],
        env=os.environ | nobody,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    warned, refused = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert warned.startswith("tokenizer.name=gpt2: http://127.0.0.1:9 cannot be reached (")
    assert "source.repository=Salesforce/wikitext: http://127.0.0.1:9 cannot be reached (" in refused


def test_output_that_cannot_be_a_folder(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BuildError, match=r"file.*: set output to a folder"):
        build(config_for(tmp_path / "file" / "out", corpus))


MOMENTS = {
    "read": ".work/read/*.json",
    "near-duplicates": ".work/pairs/made_from",
    "select": ".work/documents/*.json",
    "sample": ".work/sample/*.json",
    "tokenise": ".work/tokens/*.json",
    "rows": ".work/rows/train-*.json",
    "shards": ".work/shards/*.tar.json",
    "texts": ".work/texts/*.json",
}


def test_killed_builds_go_on_and_end_the_same(built: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for pattern in MOMENTS.values():
        kill_when(start_build(config_for(output, corpus), tmp_path), output, pattern)
        assert not (output / "manifest.json").exists()
        for shard in output.glob("*.tar"):  # whatever has its name is whole
            assert digests(built)[shard.name] == sha256(shard)
    build(config_for(output, corpus))
    assert digests(output) == digests(built)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_builds_killed_at_any_moment_end_the_same(built: Path, corpus: Path, tmp_path: Path, seed: int) -> None:
    """The whole build, or one of its workers, at three random moments."""
    output, draw = tmp_path / "out", random.Random(seed)
    for _ in range(3):
        process = start_build(config_for(output, corpus), tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(3, 20))
        if draw.random() < 0.5:
            kill_a_worker(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, 5))
        kill(process)
    build(config_for(output, corpus))
    assert digests(output) == digests(built)


def test_a_killed_worker_is_replaced(built: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start_build(config_for(output, corpus), tmp_path)
    wait_for(process, output, ".work/read/made_from")
    kill_a_worker(process)
    assert process.wait(300) == 0
    assert digests(output) == digests(built)


def start_build(config: DataBuildConfig, folder: Path) -> subprocess.Popen[bytes]:
    script = folder / "run.py"
    script.write_text(
        "import sys\n"
        "from data_pipeline.build import build\n"
        "from dualmask.config.data import DataBuildConfig\n"
        "build(DataBuildConfig.model_validate_json(sys.argv[1]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, str(script), config.model_dump_json()]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)


def kill_a_worker(process: subprocess.Popen[bytes]) -> None:
    """kill -9 one of Ray's processes that works for the build, if there is one yet."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() in ("ray::IDLE", "ray::make_block"):  # not an agent: Ray ends without it
                    child.kill()
                    return
