"""`benchmarks.experiments.repairs` with the real trainer: all arms begin with one decoder, and equal arms are one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file

from benchmarks.experiments import repairs, trials
from dualmask.core.tokenizer import Tokenizer

MODEL = {
    "family": "spanfusion",
    "hidden": 16,
    "heads": 2,
    "max_length": tiny.LENGTH,
    "span": {"decoder_layers": 1, "encoder_layers": 1, "g_max": 2, "gate_hidden": 8},
}
STAGES = [
    {"name": "decoder", "steps": 1, "train": ["decoder"], "lr": {"peak": 1e-3}},
    {
        "name": "span",
        "steps": 9,
        "train": ["decoder", "encoder", "gate"],
        "lr": {"peak": 1e-3},
        "span": {"lengths": [4], "teacher_forcing": 0.5, "losses": {"pred": 0.4}},
    },
]


@pytest.fixture(scope="module")
def arguments(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options of a small table over words of the training part in another order."""
    folder = tmp_path_factory.mktemp("repairs")
    words = Tokenizer(data / "tokenizer.model").decode(range(60, tiny.VOCAB)).split()
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=20)) for _ in range(16)]
    (folder / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = tiny.write_config(folder, data, model=MODEL, stages=STAGES)
    where = ["--config", config, "--data", folder / "test.jsonl", "--runs", folder / "runs", "--limit", 16]
    return [*where, "--json", folder / "out.json", "--seeds", 3, "--steps", 2]


def start(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["repairs", *map(str, arguments)])
    return repairs.main()


@pytest.mark.distributed
def test_a_decoder_is_taught_once_and_each_arm_behind_it(arguments: list[object], monkeypatch, capfd) -> None:
    for name, value in tiny.environment().items():
        monkeypatch.setenv(name, value)
    assert start(monkeypatch, *arguments, "--only", "repaired,R13") == 0
    out = Path(str(arguments[arguments.index("--json") + 1]))
    rows, runs = json.loads(out.read_text())["rows"], out.parent / "runs"
    told = capfd.readouterr()
    assert "R13 confidence" in told.out
    assert "holds no encoder, gate: begun anew" in told.err
    arms = {(row["repair"], row["arm"]) for row in rows}
    assert {("repaired", ""), ("R13", "entropy"), ("R13", "confidence"), ("R14", "padding seen")} < arms
    assert {row["repair"] for row in rows} == {"repaired", "R8", "R11", "R13", "R14"}
    assert {row["seed"] for row in rows} == {3}
    assert not (runs / "r13-entropy-3").exists(), "it is the repaired model: not to be trained again"
    bare = next(runs.glob("decoder-only-*")) / "model.safetensors"
    assert {name.split(".")[0] for name in load_file(bare)} == {"table", "decoder"}
    lines = (runs / "repaired-3" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["span", "span"]

    def untouched(*_: object, **__: object) -> None:
        raise AssertionError("a finished arm is trained again")

    monkeypatch.setattr(trials.subprocess, "run", untouched)
    again = [*arguments, "--model", runs / "decoder" / "export", "--only", "repaired,R13"]
    assert start(monkeypatch, *again) == 0
    assert json.loads(out.read_text())["rows"] == rows
    with pytest.raises(AssertionError, match="trained again"):
        start(monkeypatch, *arguments, "--model", runs / "decoder" / "export", "--only", "R15")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--only", "R5"], "--only: 'R5' is not one of repaired, R7, R9, R10, R13, R15"),
        (["--seeds", "one"], "--seeds one: give whole numbers"),
        (["--limit", "8"], "16 texts of 13 tokens are needed"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[object], options, complaint, monkeypatch, capsys) -> None:
    assert start(monkeypatch, *arguments, *options) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1
