"""``dualmask edit | generate | auto | summarize | infill`` as a person calls it: real processes, bytes, exit codes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_bpe import FOREIGN, make_tokenizer_json
from tiny_model import CONFIG, write_random_model

from dualmask.families.edit.infer.trace import replay
from launcher import command

ODD_TEXTS = (
    "",
    "A plain sentence about a list of names.",
    "The literal [MASK] and <pad> stand here.",
    "Unknown: 😀 日本語 é \u2581 \x01 end.",
)


def dualmask(*arguments: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """In a terminal that claims to know ASCII only: texts are UTF-8 all the same."""
    whole = [sys.executable, "-m", "launcher.command", *arguments]
    env = dict(os.environ, LC_ALL="C", PYTHONIOENCODING="ascii")
    return subprocess.run(whole, input=stdin, capture_output=True, timeout=120, check=False, env=env)


def check_refused(done: subprocess.CompletedProcess[bytes], *words: str) -> None:
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert done.stdout == b""
    assert message.count("\n") == 1
    for word in words:
        assert word in message


def test_odd_texts_one_a_line(model_folder: Path, tmp_path: Path) -> None:
    """Empty text, the literal [MASK], characters the vocabulary lacks: correct, and the trace accounts for them."""
    (tmp_path / "texts.txt").write_bytes("\n".join(ODD_TEXTS).encode())
    options = ("--model", str(model_folder), "--file", str(tmp_path / "texts.txt"), "--lines", "--json")
    done = dualmask("edit", *options, "--keep-rate", "0.7", "--rounds", "2", "--lock", "[MASK]", "--lock", "日本語")
    assert (done.returncode, done.stderr) == (0, b"")
    results = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [result["input"] for result in results] == list(ODD_TEXTS)
    assert results[0]["output"] == ""
    assert "[MASK]" in results[2]["output"]
    assert "日本語" in results[3]["output"]
    assert not any("\ufffd" in result["output"] for result in results)


def test_ten_thousand_words_come_back(model_folder: Path, tmp_path: Path) -> None:
    words = ("The statement binds a name; 日本 names are not bound.\n" * 1000).strip()
    assert len(words.split()) == 10_000
    same = dualmask(
        "edit", "--model", str(model_folder), "--keep-rate", "1", "--growth", "0", stdin=words.encode() + b"\n"
    )
    assert (same.returncode, same.stderr) == (0, b"")
    assert same.stdout.decode() == words + "\n"
    (tmp_path / "long.txt").write_text(words, encoding="utf-8")
    edited = dualmask(
        *("edit", "--model", str(model_folder), "--file", str(tmp_path / "long.txt")),
        *("--keep-rate", "0.8", "--growth", "0", "--json"),
    )
    (result,) = [json.loads(line) for line in edited.stdout.decode().splitlines()]
    (only,) = result["trace"]
    assert result["input"] == words
    assert len(only["filled"]) > 2000
    assert sum(end - start for start, end, _ in only["deleted"]) > 1000


def test_what_a_user_can_mend_is_one_line_and_code_2(model_folder: Path, tmp_path: Path) -> None:
    """None of these starts torch: each answers at once."""
    model = ("--model", str(model_folder))
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    started = time.monotonic()
    check_refused(dualmask("edit", *model, "--keep-rate", "1.5", "text"), "keep rate 1.5", "0", "1")
    check_refused(dualmask("edit", "--model", str(tmp_path / "nowhere"), "text"), "nowhere does not exist")
    check_refused(dualmask("edit", "--model", str(tmp_path), "text"), "not a model folder")
    check_refused(dualmask("edit", *model, b"na\xefve"), "TEXT is not UTF-8", "0xEF")
    check_refused(dualmask("edit", *model, stdin=b"two\nna\xefve"), "stdin is not UTF-8", "0xEF", "line 2")
    check_refused(dualmask("edit", *model, "--file", str(tmp_path / "latin.txt")), "latin.txt is not UTF-8", "0xEF")
    check_refused(dualmask("improve", *model, "text"), "improve")
    assert time.monotonic() - started < 30


def test_help_is_quick_and_teaches() -> None:
    seconds = []
    for arguments in (("--help",), ("edit", "--help"), ()):
        started = time.monotonic()
        done = dualmask(*arguments)
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        assert b"Usage: dualmask" in done.stdout
    assert min(seconds) < 1.0
    assert b"--keep-rate" in dualmask("edit", "--help").stdout


def test_ctrl_c_ends_with_130(model_folder: Path) -> None:
    arguments = ("generate", "--model", str(model_folder), "--growth", "1000000", "--rounds", "1000")
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher.command", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell that starts the tests in the background makes its children deaf to the key
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(12):  # an import that catches everything may swallow one: people press the keys again
        time.sleep(8)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=8)
            break
    out, complaint = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in complaint


@pytest.fixture(scope="module")
def model(model_folder: Path) -> tuple[str, str]:
    return "--model", str(model_folder)


def run(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, str, str]:
    """The same command inside this process, which has torch already."""
    code = command.run(arguments)
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


def test_generate_from_nothing_and_by_seed(capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str]) -> None:
    options = ("generate", *model, "--growth", "12", "--temperature", "1", "--json")
    first = run(capfdbinary, *options, "--seed", "1")
    assert first[::2] == (0, "")
    assert first == run(capfdbinary, *options, "--seed", "1")
    assert first != run(capfdbinary, *options, "--seed", "2")
    trace = json.loads(first[1])
    assert sum(len(done["filled"]) for done in trace["trace"]) == 12
    assert trace["seed"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "The value of a name", "--growth", "12"),
        ("edit", "The value of a name is the object.", "--keep-rate", "0.5"),
        ("auto", "The value of a name is the object.", "--growth", "5"),
        ("infill", "The ___ of a name.", "--tokens", "5"),
    ],
)
def test_min_p_holds_back_a_hot_draw(
    capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str], arguments: tuple[str, ...]
) -> None:
    hot = (*arguments, *model, "--temperature", "2", "--json")
    greedy, drawn, off, one = (
        run(capfdbinary, *options)
        for options in ((*arguments, *model, "--json"), hot, (*hot, "--min-p", "0"), (*hot, "--min-p", "1"))
    )
    assert greedy[0] == 0
    assert greedy == one != drawn == off


def test_summarize_and_infill(capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str]) -> None:
    text = "The value of a name is the object that it is bound to."
    code, short, _ = run(capfdbinary, "summarize", *model, text, "--keep-rate", "0.4")
    assert code == 0
    assert 0 < len(short) < len(text)
    code, filled, _ = run(capfdbinary, "infill", *model, "The {} of a {}.", "--hole", "{}", "--tokens", "2")
    assert code == 0
    assert filled.startswith("The ")
    assert " of a " in filled
    assert filled.endswith(".\n")


def test_auto_says_what_the_gate_thought_and_why_it_stopped(
    capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str]
) -> None:
    text = "The value of a name is the object that it is bound to."
    code, line, _ = run(capfdbinary, "auto", *model, text, "--json", "--rounds", "3")
    trace = json.loads(line)
    assert code == 0
    assert list(trace) == ["input", "output", "mode", "rounds_used", "stopped", "seed", "trace"]
    assert trace["mode"] == "auto"
    assert trace["stopped"] in ("rounds", "nothing_to_do", "seen_before")
    assert trace["rounds_used"] == len(trace["trace"]) <= 3
    assert 0 < trace["trace"][0]["gate"] < 1
    code, line, _ = run(capfdbinary, "auto", *model, text, "--json", "--gate-threshold", "1", "--lock", "the object")
    trace = json.loads(line)
    assert not any(done["deleted"] for done in trace["trace"])
    assert "the object" in trace["output"]


def test_a_correction_leaves_code_alone_unless_told(
    capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str]
) -> None:
    text = "The name in os.path is (x2) 日本, see https://docs.python.org/3/ for it."
    eager = ("--gate-threshold", "0", "--edit-threshold", "0.000001")
    code, kept, _ = run(capfdbinary, "auto", *model, text, *eager)
    assert code == 0
    assert all(f" {word} " in f" {kept} " for word in ("os.path", "(x2)", "日本,", "https://docs.python.org/3/"))
    assert kept.strip() != text
    text = text.replace("(x2)", "x2")  # of brackets no edit writes or deletes one alone
    code, free, _ = run(capfdbinary, "auto", *model, text, *eager, "--no-protect")
    assert code == 0
    assert "os.path" not in free


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        ((), ("rounds", 9)),
        (("--stop-confidence", "0"), ("confident", 1)),
        (("--stop-distance", "1"), ("settled", 1)),
    ],
)
def test_stop_options_end_the_rounds(
    capfdbinary: pytest.CaptureFixture[bytes],
    model: tuple[str, str],
    options: tuple[str, ...],
    ended: tuple[str, int],
) -> None:
    arguments = (
        "edit",
        *model,
        "A list of names is a list.",
        "--keep-rate",
        "0.6",
        "--rounds",
        "9",
        "--temperature",
        "1",
    )
    _, line, _ = run(capfdbinary, *arguments, *options, "--json")
    trace = json.loads(line)
    assert (trace["stopped"], trace["rounds_used"]) == ended


def test_the_cosine_schedule_writes_little_at_first(
    capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str]
) -> None:
    options = ("generate", *model, "The value of a name.", "--anywhere", "--growth", "40", "--rounds", "4", "--json")
    written = {}
    for schedule in ("linear", "cosine"):
        _, line, _ = run(capfdbinary, *options, "--growth-schedule", schedule)
        written[schedule] = [len(done["filled"]) for done in json.loads(line)["trace"]]
    assert written == {"linear": [10, 10, 10, 10], "cosine": [4, 8, 13, 15]}


def test_a_model_of_byte_level_pieces_edits_any_text(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """A folder whose tokenizer.model is a tokenizer.json: no character is torn, and locked ones stay."""
    bpe = make_tokenizer_json(tmp_path) / "tokenizer.json"
    model = ("--model", str(write_random_model(tmp_path / "model", CONFIG, bpe)))
    texts = [*ODD_TEXTS, "The <|endoftext|> of a list.", FOREIGN[:200]]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    options = ("--file", str(tmp_path / "texts.txt"), "--lines", "--json", "--rounds", "2", "--temperature", "1")
    code, lines, complaint = run(capfdbinary, "edit", *model, *options, "--keep-rate", "0.6", "--lock", "日本語")
    assert (code, complaint) == (0, "")
    results = [json.loads(line) for line in lines.splitlines()]
    assert [result["input"] for result in results] == texts
    assert "日本語" in results[3]["output"]
    for result in results:
        assert "\ufffd" not in result["output"]
        assert replay(result["input"], result["trace"]) == result["output"]
    assert results[-1]["output"] != texts[-1]
    same = run(capfdbinary, "edit", *model, *options[:4], "--keep-rate", "1", "--growth", "0")
    assert [json.loads(line)["output"] for line in same[1].splitlines()] == texts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("edit", "MODEL", "text", "--keep-rate", "much"), "'--keep-rate': Input should be a valid number"),
        (("edit", "MODEL", "text", "--keep-rate=much"), "(given: 'much')"),
        (("edit", "MODEL", "text", "--keep-rate", "nan"), "keep rate nan"),
        (("edit", "MODEL", "text", "--rounds", "0"), "rounds 0"),
        (("auto", "MODEL", "text", "--gate-threshold", "7"), "gate threshold 7.0"),
        (("auto", "MODEL", "text", "--stop-distance", "-1"), "stop distance -1.0"),
        (("auto", "MODEL", "text", "--growth-schedule", "steep"), "growth schedule steep"),
        (("auto", "MODEL", "text", "--trace", "/no/such/page.html"), "there is no folder /no/such"),
        (("edit", "MODEL", "text", "--top-p", "2"), "top-p 2"),
        (("infill", "MODEL", "a ___", "--min-p", "-1"), "min-p -1.0 is not possible: give 0"),
        (("edit", "MODEL", "text", "--unknown"), "--unknown"),
        (("edit", "MODEL", "text", "--device", "tpu"), "device 'tpu'"),
        (("edit", "MODEL", "text", "--lock", "words"), "lock 'words' occurs nowhere"),
        (("edit", "MODEL", "text", "--lock-span", "3"), "lock span '3'"),
        (("edit", "MODEL", "text", "--lock-span", "3:9"), "lock span 3:9"),
        (("edit", "MODEL", "text", "--file", "x"), "--file"),
        (("edit", "MODEL", "--file", "/no/such/file"), "/no/such/file: No such file"),
        (("edit", "MODEL", "--file", "/"), "/: Is a directory"),
        (("generate", "MODEL", "--growth", "-3"), "growth -3"),
        (("infill", "MODEL", "text"), "no hole"),
        (("infill", "MODEL", "a ___", "--tokens", "0"), "tokens of a hole 0"),
        (("export", "/no/such/run", "/no/such/out"), "/no/such/run"),
    ],
)
def test_refusals_name_what_is_wrong(
    capfdbinary: pytest.CaptureFixture[bytes], model: tuple[str, str], arguments: tuple[str, ...], words: str
) -> None:
    given = [part for argument in arguments for part in (model if argument == "MODEL" else (argument,))]
    code, out, message = run(capfdbinary, *given)
    assert (code, out, message.count("\n")) == (2, "", 1)
    assert words in message


def test_a_reader_that_goes_away_is_no_error(model_folder: Path) -> None:
    lines = b"The name of the list.\n" * 600
    called = f'"{sys.executable}" -m launcher.command summarize --lines --model "{model_folder}"'
    shell = called + " | head -n 1; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", shell], input=lines, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (141, b"")
    assert done.stdout.count(b"\n") == 1
