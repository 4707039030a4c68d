"""``dualmask data build`` as processes: two at once, stopped, killed, and in environments that are not as usual."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pytest

from data_pipeline.manifest import Manifest
from data_pipeline.verify import verify_shards

ROOT = Path(__file__).parents[2]
MARK = "DUALMASK_TEST_MARK"  # in the environment of a build, and so of all that it starts
PATIENCE_SECONDS = 400.0
NO_PASSWD_ENTRY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "x.jsonl"
    names = sorted(topics, key=lambda name: len(topics[name]))[-30:]
    file.write_text("".join(json.dumps({"id": name, "text": topics[name]}) + "\n" for name in names))
    return file


def command(corpus: Path, output: Path, *more: str) -> list[str]:
    keys = [f"source.paths=[{corpus}]", f"output={output}", "tokenizer.vocab_size=600", "max_length=64"]
    arguments = [argument for key in keys for argument in ("--set", key)]
    config = ROOT / "configs" / "data" / "jsonl.yaml"
    return [sys.executable, "-m", "launcher.command", "data", "build", "--config", str(config), *arguments, *more]


def start(arguments: list[str], mark: str = "", **environment: str) -> subprocess.Popen[str]:
    """In a session of its own, as from a terminal."""
    return subprocess.Popen(
        arguments,
        env=os.environ | {"PYTHONPATH": str(ROOT), MARK: mark} | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    return process.communicate(timeout=PATIENCE_SECONDS)[1]


def marked(mark: str) -> list[psutil.Process]:
    """The processes that a build has started, also those that have lost their parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def nothing_left(mark: str) -> Iterator[None]:
    """Whatever a failed test leaves behind is ended."""
    try:
        yield
    finally:
        for process in marked(mark):
            process.kill()


def complete(output: Path) -> bool:
    return Manifest.load(output).splits["train"].rows > 0 and verify_shards(output, "train") == []


def holder(output: Path) -> int:
    """The process that holds the lock; 0 if none has said that it does."""
    try:
        return int(json.loads((output / ".work" / "lock").read_text())["pid"])
    except (OSError, ValueError):
        return 0


def test_a_second_build_waits_or_is_refused_and_a_killed_one_is_in_nobodys_way(corpus: Path, tmp_path: Path) -> None:
    output, mark = tmp_path / "out", str(tmp_path)
    with nothing_left(mark):
        first = start(command(corpus, output), mark)
        wait_until(lambda: holder(output), first)
        for process in psutil.Process(first.pid).children(recursive=True):
            process.kill()
        assert "the build was killed by SIGKILL" in finish(first)
        assert first.returncode == 2
        first = start(command(corpus, output), mark)
        wait_until(lambda: holder(output) in {process.pid for process in marked(mark)}, first)
        name = f"the build on {socket.gethostname()}, pid {holder(output)}"
        waiting = start(command(corpus, output), mark)
        refused = start(command(corpus, output, "--no-wait"), mark)
        (line,) = finish(refused).splitlines()
        assert line.startswith(f"dualmask: output={output}: {name} writes there: let it end, build without --no-wait")
        assert refused.returncode == 2
        assert "is complete (" in finish(first)
        said = finish(waiting).splitlines()
        assert said == [f"{output}: waiting for {name} to end", f"{output} is complete, nothing to do"]
        assert first.returncode == waiting.returncode == 0
        assert complete(output)
        assert marked(mark) == []


def has_ray(mark: str) -> bool:
    return any("gcs_server" in process.name() for process in marked(mark))


MOMENTS: dict[str, Callable[[Path, str], object]] = {
    "before Ray": lambda output, mark: len(marked(mark)) > 1,
    "while Ray starts": lambda output, mark: has_ray(mark),
    "at work": lambda output, mark: (output / "tokenizer.model").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("number", "to_all", "code"), [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130)])
def test_a_signal_leaves_no_process_behind(
    moment: str, number: signal.Signals, to_all: bool, code: int, corpus: Path, tmp_path: Path
) -> None:
    """SIGTERM to the one process that the user knows, Ctrl-C to all of them, as a terminal does."""
    output, mark = tmp_path / "out", str(tmp_path)
    with nothing_left(mark):
        process = start(command(corpus, output), mark)
        wait_until(lambda: MOMENTS[moment](output, mark), process)
        (os.killpg if to_all else os.kill)(process.pid, number)
        said = finish(process).splitlines()
        assert said[-1] == f"dualmask: stopped by {number.name}: what is finished is kept, the same command goes on"
        assert "Traceback" not in "".join(said)
        assert process.returncode == code
        assert marked(mark) == []
    assert not (output / "manifest.json").exists()


def long_folder(folder: Path) -> str:
    long = folder / ("x" * 120)
    long.mkdir()
    return str(long)


ENVIRONMENTS: dict[str, tuple[list[str], Callable[[Path], dict[str, str]]]] = {
    "no passwd entry, no home": (NO_PASSWD_ENTRY, lambda folder: {"HOME": "/proc/self", "USER": "", "LOGNAME": ""}),
    "long TMPDIR": ([], lambda folder: {"TMPDIR": long_folder(folder)}),
    "one core, empty RAY_ADDRESS": (["taskset", "--cpu-list", "0"], lambda folder: {"RAY_ADDRESS": ""}),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_builds_in_unusual_environments(name: str, corpus: Path, tmp_path: Path) -> None:
    prefix, environment = ENVIRONMENTS[name]
    if prefix and (
        shutil.which(prefix[0]) is None or subprocess.run([*prefix, "true"], capture_output=True).returncode
    ):
        pytest.skip(f"{prefix[0]} does not work here")
    mark = str(tmp_path)
    with nothing_left(mark):
        process = start([*prefix, *command(corpus, tmp_path / "out")], mark, **environment(tmp_path))
        said = finish(process)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert marked(mark) == []
    assert complete(tmp_path / "out")


def test_no_folder_for_sockets_is_one_line(corpus: Path, tmp_path: Path) -> None:
    """Where /tmp cannot be written to either: in a name space of its own."""
    hidden = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -o bind,ro /proc /tmp && exec "$@"',
        "-",
    ]
    if subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("no name spaces here")
    if any(Path(needed).is_relative_to("/tmp") for needed in (sys.executable, __file__)):
        pytest.skip("this Python would be hidden with /tmp")
    folder = Path("/var/tmp") / f"dualmask-{os.getpid()}"
    shutil.copytree(corpus.parent, folder)
    try:
        arguments = command(folder / corpus.name, folder / "out")
        said = finish(start([*hidden, *arguments], TMPDIR=long_folder(folder), RAY_TMPDIR="/nowhere"))
    finally:
        shutil.rmtree(folder)
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("dualmask: Ray's sockets need a folder that can be written to")
