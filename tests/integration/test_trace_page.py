"""The page of ``--trace`` in a real browser: its script runs, and shows what the trace says."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dualmask.families.edit.cli.page import trace_page
from dualmask.families.edit.infer.text import TextResult
from dualmask.families.edit.infer.trace import replay
from launcher import command

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is on the PATH")

DRAFT = "The functoin 😀 return a </script><script>evil()</script> list list & more."
ROUNDS: list[Any] = [
    {
        "round": 1,
        "gate": 0.96,
        "deleted": [(3, 12, " functoin"), (14, 21, " return")],
        "inserted": [(3, 1), (14, 1)],
        "filled": [
            {"position": 3, "text": " function", "confidence": 0.97},
            {"position": 14, "text": " <b>", "confidence": 0.04},
        ],
    },
    {"round": 2, "gate": 0.1, "deleted": [], "inserted": [], "filled": []},
]


def result(draft: str = DRAFT, rounds: list[Any] = ROUNDS, mode: str = "auto") -> TextResult:
    output = replay(draft, rounds)
    trace: Any = {"input": draft, "output": output, "mode": mode, "rounds_used": len(rounds)}
    return TextResult(draft, draft, output, trace | {"stopped": "nothing_to_do", "seed": 0, "trace": rounds})


def open_page(page: str, folder: Path, fragment: str = "", *, then: str = "", seconds: int = 2) -> str:
    """The document after its script has run, and after ``then``, a script of the test. Time is the browser's own."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script>{then}</script></body>"), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}")
    address = f"{file.as_uri()}{fragment}"
    done = subprocess.run(
        [str(CHROMIUM), *options, f"--virtual-time-budget={1000 * seconds}", "--dump-dom", address],
        capture_output=True,
        timeout=300,
        check=True,
    )
    return done.stdout.decode()


def inside(document: str, name: str) -> str:
    """What stands in the element of this id (elements of its own kind do not nest here)."""
    element = re.search(rf'<(\w+)[^>]* id="{name}"[^>]*>(.*?)</\1>', document, re.S)
    assert element is not None, name
    return element[2]


def words(markup: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", markup))


def test_the_page_is_self_contained_and_holds_the_trace() -> None:
    page = trace_page([result()], gate_threshold=0.5)
    data = json.loads(inside(page, "data"))
    assert data["texts"] == [{"draft": DRAFT, "trace": json.loads(json.dumps(result().trace))}]
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=|https?:|@import|url\(", page)
    assert "<script>evil" not in page
    assert "not shown" not in page
    assert page.count("</script>") == 2


@needs_browser
def test_each_step_shows_its_part_of_a_round(tmp_path: Path) -> None:
    page = trace_page([result(), result("Second text.", ROUNDS[1:])], gate_threshold=0.5)
    deleted = open_page(page, tmp_path, "#1.1")
    assert 'data-ready="true"' in deleted
    assert re.findall(r"<del>(.*?)</del>", inside(deleted, "draft")) == [" functoin", " return"]
    assert words(inside(deleted, "draft")) == DRAFT
    assert words(inside(deleted, "phase")) == "Round 1: 2 places deleted"
    assert words(inside(deleted, "gate-label")) == "Gate 96 %: edit"
    assert 'id="gate-bar" style="width: 96%;"' in deleted
    assert words(inside(deleted, "rounds")).startswith("DraftRound 1: edit2 places deleted, 2 writtenRound 2: generate")
    assert words(inside(deleted, "stopped")) == "Stopped: nothing was left to do."
    assert inside(open_page(page, tmp_path, "#1.2"), "draft").count('class="hole"') == 2
    filled = inside(open_page(page, tmp_path, "#1.3"), "draft")
    assert '<ins title="97 % sure" tabindex="0" style="--sure: 0.97;"> function</ins>' in filled
    assert words(filled) == result().output
    second = open_page(page, tmp_path, "#2.1")
    assert words(inside(second, "phase")) == "Round 2: nothing to do"
    assert words(inside(second, "draft")) == "Second text."


@needs_browser
def test_keys_buttons_and_play_move_through_the_steps(tmp_path: Path) -> None:
    page = trace_page([result()], gate_threshold=0.5)
    event = 'new KeyboardEvent("keydown", {key, bubbles: true})'

    def press(*keys: str) -> str:
        return f"for (const key of {list(keys)}) document.body.dispatchEvent({event})"

    def phase(then: str, seconds: int = 2) -> str:
        return words(inside(open_page(page, tmp_path, then=then, seconds=seconds), "phase"))

    assert phase(press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft")) == "Round 1: 2 to write"
    assert phase(press("End", "ArrowRight")) == "Result"
    assert phase('document.querySelectorAll("#rounds button")[2].click()') == "Round 2: nothing to do"
    assert phase('document.getElementById("play").click()', seconds=30) == "Result"


@needs_browser
@pytest.mark.parametrize("mode", ["edit", "generate", "auto", "summarize", "infill"])
def test_every_command_writes_a_page_whose_last_step_is_its_output(
    capfdbinary: pytest.CaptureFixture[bytes], model_folder: Path, tmp_path: Path, mode: str
) -> None:
    text = "The value ___ of a list & a <name> 😀, é and 日本."
    code = command.run(
        [mode, "--model", str(model_folder), text, "--trace", str(tmp_path / "out.html"), "--rounds", "2"]
    )
    out = capfdbinary.readouterr().out.decode()
    assert code == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    document = open_page(page, tmp_path, "#1.999")
    assert words(inside(document, "phase")) == "Result"
    assert words(inside(document, "draft")) == out.removesuffix("\n")
    gate = words(inside(open_page(page, tmp_path, "#1.1"), "gate-label"))
    assert gate.startswith("Gate forced: " if mode != "auto" else "Gate ")
    assert ("forced" in gate) == (mode != "auto")


def test_a_page_of_many_lines(capfdbinary: pytest.CaptureFixture[bytes], model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("A name.\n" * 60)
    page = tmp_path / "out.html"
    options = ["--model", str(model_folder), "--lines", "--file", str(tmp_path / "lines.txt"), "--trace", str(page)]
    assert command.run(["summarize", *options]) == 0
    assert capfdbinary.readouterr().err.decode() == f"{page} shows the first 50 of 60 texts\n"
    html = page.read_text(encoding="utf-8")
    assert len(json.loads(inside(html, "data"))["texts"]) == 50
    assert "10 more texts are not shown: a page holds 50." in html
    options[-1] = str(tmp_path / "nowhere" / "out.html")
    assert command.run(["summarize", *options]) == 2
    assert "there is no folder" in capfdbinary.readouterr().err.decode()
