"""``dualmask data build`` as a process of its own, on a corpus that is cut into several blocks."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc_data.topics import topics

from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
PATIENCE_SECONDS = 600.0
OF_THIS_RUN = {"built.json", "report.json", "report.html"}  # where it ran, and how long its steps took
_WORDS = sorted({word for text in topics.values() for word in text.split() if word.isalpha()})


def write_corpus(folder: Path, megabytes: float, files: int = 3) -> Path:
    """Files of JSON lines, of random sentences; 24 MB are three blocks in each step."""
    folder.mkdir()
    draw = random.Random(0)
    for number in range(files):
        with (folder / f"{number}.jsonl").open("w") as file:
            while file.tell() < megabytes * 1e6 / files:
                text = "\n\n".join(" ".join(draw.choices(_WORDS, k=60)) for _ in range(5))
                file.write(json.dumps({"text": text}) + "\n")
    return folder


def command(corpus: Path, output: Path, *more: str) -> list[str]:
    keys = {
        "source.paths": f"[{corpus}]",
        "output": output,
        "tokenizer.vocab_size": 600,
        "tokenizer.sample_megabytes": 0.5,
        "max_length": 64,
        "workers": 2,
        **dict(key.split("=", 1) for key in more),
    }
    config = ROOT / "configs" / "data" / "jsonl.yaml"
    values = [argument for key, value in keys.items() for argument in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "launcher.command", "data", "build", "--config", str(config), *values]


def start(arguments: list[str], environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
    """In a session of its own, as from a terminal."""
    return subprocess.Popen(
        arguments,
        env=os.environ | {"PYTHONPATH": PYTHONPATH, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    return process.communicate(timeout=PATIENCE_SECONDS)[1]


def built(arguments: list[str], environment: Mapping[str, str] = {}) -> str:
    """Runs a build that must succeed; returns what it said."""
    process = start(arguments, environment)
    said = finish(process)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Whether the ``condition`` held before the process ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return True


def holder(output: Path) -> int:
    """The process that builds there; 0 if none has said that it does."""
    try:
        return int(json.loads((output / ".work" / "lock").read_text())["pid"])
    except (OSError, ValueError):
        return 0


def digests(output: Path) -> dict[str, str]:
    """Of all that a build leaves for others. What its manifest says of the shards is compared with the files."""
    for split in Manifest.load(output).splits.values():
        for shard in split.shards:
            assert sha256(output / shard.file) == shard.sha256
    files = [path for path in output.rglob("*") if path.is_file() and ".work" not in path.parts]
    of_files = {str(path.relative_to(output)): sha256(path) for path in files if path.name not in OF_THIS_RUN}
    counts = json.loads((output / "report.json").read_bytes())
    del counts["seconds"]
    return of_files | {"counts": json.dumps(counts)}
