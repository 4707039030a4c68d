"""The command: one table, one result file, one line for what cannot be planned."""

import json
from pathlib import Path

import pytest

from dualmask.config.load import load_run
from launcher.plan import main, plan

ROOT = Path(__file__).parents[3]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
VOCABULARY = ["--set", "model.vocab_size=2048"]


def test_result_file(tmp_path, capsys):
    file = tmp_path / "plan.json"
    asked = ["--config", QUICKSTART, *VOCABULARY, "--nodes", "2", "--gpus-per-node", "4", "--json", str(file)]
    assert main(asked) == 0
    result = json.loads(file.read_text())
    assert result["suite"] == "plan"
    totals = {row["stage"]: row["value"] for row in result["rows"] if row.get("part") == "all"}
    assert list(totals) == ["filler", "inserter", "picker", "joint"]
    assert totals["joint"] > totals["picker"] > totals["filler"]  # three rounds, one round with everything, one module
    assert result["assumed"]
    assert "Assumed:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--set", "data.path=nowhere"], "--set model.vocab_size="),
        ([*VOCABULARY, "--set", "parallel.tensor=2", "--gpus-per-node", "3"], "--gpus-per-node 3"),
        ([*VOCABULARY, "--gpus-per-node", "5"], "batch.sequences=32"),
    ],
)
def test_one_line_for_what_cannot_be(wrong, named, capsys):
    assert main(["--config", QUICKSTART, *wrong]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


HARDWARE = ["--hardware", "h100-80g"]
LARGE = ["--config", str(ROOT / "configs" / "dualmask_7b.yaml"), "--nodes", "2", "--gpus-per-node", "8"]


def test_time_price_and_recommendation(tmp_path, capsys):
    priced, file = tmp_path / "priced.yaml", tmp_path / "plan.json"
    shipped = ROOT / "configs" / "hardware" / "h100-80g.yaml"
    priced.write_text(shipped.read_text() + "price_per_hour: 2\n")
    assert main([*LARGE, "--hardware", str(priced), "--recommend", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    rows = result["rows"]
    seconds = {(row["stage"], row["part"]): row["value"] for row in rows if row["metric"] == "step_seconds"}
    assert seconds["joint", "least"] <= seconds["joint", "most"]
    days = {row["bound"]: row["value"] for row in rows if row["metric"] == "run_days"}
    cost = {row["bound"]: row["value"] for row in rows if row["metric"] == "run_cost"}
    assert cost["most"] == pytest.approx(days["most"] * 24 * 16 * 2)
    recommended = {row["key"]: row["value"] for row in rows if row["metric"] == "recommended"}
    (largest,) = (row["value"] for row in rows if row["metric"] == "largest_micro")
    assert recommended["batch.micro"] == largest >= 1
    assert result["hardware"]["price_per_hour"] == 2
    said = capsys.readouterr().out
    assert said.startswith("Recommended, and planned below: --set parallel.tensor=")
    assert "microseconds of the host assumptions" in said


def test_gpus_that_nobody_named_are_named(capsys):
    largest = ["--config", str(ROOT / "configs" / "dualmask_70b.yaml"), "--nodes", "8", "--gpus-per-node", "8"]
    assert main([*largest, "--recommend"]) == 0
    said = capsys.readouterr().out
    assert "the GPUs are h100-80g" in said
    for phase in (
        "at start",
        "at a stage change",
        "while a checkpoint is written",
        "at export",
        "device at initialize",
    ):
        assert phase in said


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ([*LARGE[:2], "--recommend", *HARDWARE], "it would on 16 GPUs"),
        ([*LARGE, "--hardware", "abacus"], "neither a file nor one of"),
        ([*LARGE[:2], "--nodes", "0", "--recommend", *HARDWARE], "--nodes 0"),
    ],
)
def test_one_line_for_what_cannot_be_recommended(asked, named, capsys):
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_rows_sum_up():
    run = load_run(QUICKSTART, ["model.vocab_size=2048"])
    rows = plan(run, 2048, 2)
    sizes = {row["module"]: row["value"] for row in rows if row["metric"] == "parameters"}
    assert sizes.pop("all") == sum(sizes.values())
    sent = {(row["stage"], row["kind"]): row["value"] for row in rows if row["metric"] == "sent"}
    for stage in run.stages:
        kinds = ("parameters", "gradients", "activations")
        assert sent[stage.name, "all"] == sum(sent[stage.name, kind] for kind in kinds) > 0
        held = {r["kind"]: r["value"] for r in rows if r["metric"] == "rank_bytes" and r["stage"] == stage.name}
        assert held.pop("all") == pytest.approx(sum(held.values()))
        assert held["activations"] > 0
