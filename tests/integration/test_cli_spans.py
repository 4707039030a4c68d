"""``dualmask generate`` with a SpanFusionLM, through the command line: text, JSON, the page, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_trace_page import inside, needs_browser, open_page, words
from tiny_model import write_random_model

from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from launcher import command

CONFIG = SpanFusionConfig(
    family="spanfusion",
    hidden=32,
    heads=2,
    max_length=96,
    span=SpanModelConfig(decoder_layers=2, encoder_layers=1, g_max=4),
)
TEXT = "The value of a <name> 😀 is & 日本"


@pytest.fixture(scope="module")
def folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans") / "model"
    return write_random_model(folder, CONFIG, model_folder / "tokenizer.model", seed=1)


def generate(capfdbinary: pytest.CaptureFixture[bytes], folder: Path, *arguments: str) -> str:
    code = command.run(["generate", "--model", str(folder), *arguments])
    out, complaint = capfdbinary.readouterr()
    assert (code, complaint) == (0, b"")
    return out.decode()


def trace_of(capfdbinary: pytest.CaptureFixture[bytes], folder: Path, *arguments: str) -> dict[str, Any]:
    tree = json.loads(generate(capfdbinary, folder, "--json", *arguments))
    assert isinstance(tree, dict)
    return tree


def test_the_trace_accounts_for_every_character(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    options = (TEXT, "--tokens", "20", "--span", "8", "--gate", "accurate")
    trace = trace_of(capfdbinary, folder, *options)
    assert list(trace) == ["input", "output", "mode", "rounds_used", "seed", "trace"]
    assert generate(capfdbinary, folder, *options) == trace["output"] + "\n"
    assert (trace["input"], trace["mode"], trace["seed"]) == (TEXT, "generate", 0)
    assert [span["steps"] for span in trace["trace"]] == [4, 4, 4]
    assert trace["rounds_used"] == 12
    fills = [fill for span in trace["trace"] for fill in span["filled"]]
    assert TEXT + "".join(fill["text"] for fill in fills) == trace["output"]
    for fill in fills:
        assert trace["output"][fill["position"] :].startswith(fill["text"])
        assert 0 < fill["confidence"] <= 1
    for span in trace["trace"]:
        assert len(span["entropy"]) == span["steps"]
        assert {fill["step"] for fill in span["filled"]} <= {1, 2, 3, 4}


def test_a_verified_text_is_traced_by_passes(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    narrow = trace_of(capfdbinary, folder, TEXT, "--tokens", "12", "--span", "1", "--gate", "verified")
    wide = trace_of(capfdbinary, folder, TEXT, "--tokens", "12", "--span", "1000", "--gate", "verified")
    assert narrow["output"] == wide["output"]
    for trace in (narrow, wide):
        fills = [fill for span in trace["trace"] for fill in span["filled"]]
        assert TEXT + "".join(fill["text"] for fill in fills) == trace["output"]
        assert trace["rounds_used"] == len(trace["trace"])


def test_gates_spans_and_lengths(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    for gate, steps in (("fast", [1, 1]), ("fixed:3", [3, 3]), ("accurate", [4, 4])):
        trace = trace_of(capfdbinary, folder, TEXT, "--tokens", "16", "--span", "8", "--gate", gate)
        assert [span["steps"] for span in trace["trace"]] == steps
    wide = trace_of(capfdbinary, folder, TEXT, "--tokens", "5", "--span", "1000")
    assert [len(span["filled"]) for span in wide["trace"]] == [5]
    nothing = trace_of(capfdbinary, folder, "--tokens", "0")
    assert (nothing["output"], nothing["trace"]) == ("", [])
    usual = trace_of(capfdbinary, folder)
    assert sum(len(span["filled"]) for span in usual["trace"]) == 64


def test_draws_by_seed(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    options = (TEXT, "--tokens", "12", "--temperature", "1", "--top-p", "0.9")
    first = generate(capfdbinary, folder, *options, "--seed", "1")
    assert first.startswith(TEXT)
    assert first == generate(capfdbinary, folder, *options, "--seed", "1")
    assert first != generate(capfdbinary, folder, *options, "--seed", "2")


def test_min_p_holds_back_a_hot_draw(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    hot = (TEXT, "--tokens", "12", "--temperature", "2")
    greedy, drawn, off, one = (
        trace_of(capfdbinary, folder, *options)
        for options in (hot[:3], hot, (*hot, "--min-p", "0"), (*hot, "--min-p", "1"))
    )
    assert greedy == one != drawn == off


def test_lines_are_what_each_is_alone(capfdbinary: pytest.CaptureFixture[bytes], folder: Path, tmp_path: Path) -> None:
    """Also where less than the usual length fits behind one of them."""
    lines = [TEXT, "", "A list of names is a list. " * 8, "The literal [MASK] and [PRED]", "x"]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    together = generate(capfdbinary, folder, "--lines", "--json", "--file", str(tmp_path / "texts.txt"))
    alone = [trace_of(capfdbinary, folder, line) for line in lines]
    for in_batch, by_itself in zip(map(json.loads, together.splitlines()), alone, strict=True):
        assert in_batch["output"] == by_itself["output"]
        assert in_batch["rounds_used"] == by_itself["rounds_used"]
    written = [sum(len(span["filled"]) for span in trace["trace"]) for trace in alone]
    assert written[2] < 64
    assert [written[index] for index in (0, 1, 3, 4)] == [64] * 4


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("x", "--gate", "often"), "gate often is not possible: give learned, fast, accurate, verified or fixed:n"),
        (
            ("x", "--gate", "fixed:5"),
            "gate fixed:5 is not possible: give learned, fast, accurate, verified or fixed:n with n from",
        ),
        (("x", "--span", "0"), "span 0 is not possible"),
        (("x", "--tokens", "-1"), "tokens -1 is not possible"),
        (("x", "--tokens", "95"), "a prompt of 1 tokens and 95 to write"),
        (("word " * 99,), "shorten it to 94 or fewer"),
        (("x", "--top-p", "2"), "top-p 2.0 is not possible"),
        (("x", "--min-p", "1.5"), "min-p 1.5 is not possible"),
        (("x", "--temperature", "nan"), "temperature nan is not possible"),
        (("x", "--growth", "3"), "--growth has no meaning for FOLDER, whose family is spanfusion: leave it out"),
        (("x", "--rounds", "8"), "--rounds has no meaning"),
        (("x", "--lock", "x"), "--lock has no meaning"),
        (("x", "--remask"), "--remask has no meaning"),
        (("x", "--place-temperature", "0"), "--place-temperature has no meaning"),
        (("x", "--trace", "/no/such/page.html"), "there is no folder /no/such"),
    ],
)
def test_refusals_are_one_line(
    capfdbinary: pytest.CaptureFixture[bytes], folder: Path, arguments: tuple[str, ...], refusal: str
) -> None:
    assert command.run(["generate", "--model", str(folder), *arguments]) == 2
    out, complaint = capfdbinary.readouterr()
    assert (out, complaint.count(b"\n")) == (b"", 1)
    assert refusal.replace("FOLDER", str(folder)) in complaint.decode()


@pytest.mark.parametrize("options", [("--gate", "learned"), ("--span", "16"), ("--tokens", "3")])
def test_dualmask_knows_no_spans(
    capfdbinary: pytest.CaptureFixture[bytes], model_folder: Path, options: tuple[str, str]
) -> None:
    assert command.run(["generate", "--model", str(model_folder), "x", *options]) == 2
    complaint = capfdbinary.readouterr().err.decode()
    assert f"{options[0]} has no meaning for {model_folder}, whose family is dualmask: leave it out" in complaint


@pytest.mark.parametrize("mode", ["edit", "auto", "summarize", "infill"])
def test_other_commands_want_dualmask(capfdbinary: pytest.CaptureFixture[bytes], folder: Path, mode: str) -> None:
    assert command.run([mode, "--model", str(folder), "a ___ text"]) == 2
    complaint = capfdbinary.readouterr().err.decode()
    assert "of the family spanfusion; give one of the family dualmask" in complaint
    assert complaint.count("\n") == 1


def test_a_line_that_is_too_long_is_named_before_anything_is_written(
    capfdbinary: pytest.CaptureFixture[bytes], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("x\n" + "word " * 99)
    options = ["--lines", "--file", str(tmp_path / "texts.txt")]
    assert command.run(["generate", "--model", str(folder), *options]) == 2
    out, complaint = capfdbinary.readouterr()
    assert out == b""
    assert complaint.decode().startswith("dualmask: line 2: a prompt of ")


@needs_browser
def test_the_page_plays_the_steps(capfdbinary: pytest.CaptureFixture[bytes], folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    options = (TEXT, "--tokens", "12", "--span", "8", "--gate", "accurate", "--json", "--trace", str(page))
    trace = json.loads(generate(capfdbinary, folder, *options))
    html = page.read_text(encoding="utf-8")
    assert json.loads(inside(html, "data")) == {"texts": [{"draft": TEXT, "trace": trace}]}

    def shown(step: int) -> str:
        return open_page(html, tmp_path, f"#1.{step}")

    assert words(inside(shown(0), "draft")) == TEXT
    opened = shown(1)
    assert words(inside(opened, "phase")) == "Span 1: 8 to write"
    assert inside(opened, "draft").count('class="hole"') == 8
    third = shown(4)
    assert words(inside(third, "phase")) == "Span 1, step 3: 2 written"
    assert inside(third, "draft").count('class="hole"') == 2
    assert inside(third, "draft").count('class="fresh"') == 2
    entropy = trace["trace"][0]["entropy"][2]
    assert words(inside(third, "gate-label")) == f"Entropy {entropy:.2f} nats"
    assert words(inside(third, "rounds")) == "PromptSpan 1: 4 steps8 writtenSpan 2: 4 steps4 writtenResult"
    assert words(inside(third, "stopped")) == "8 steps in 2 spans."
    last = shown(999)
    assert words(inside(last, "phase")) == "Result"
    assert words(inside(last, "draft")) == trace["output"]
