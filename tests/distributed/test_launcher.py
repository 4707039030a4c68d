"""What the command says and returns: one line and code 2 for what cannot run, before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import warm
import yaml

from dualmask.config.load import load_run
from dualmask.core.manifest import digest
from launcher.costs import StepCosts

SCRIPT = tiny.ROOT / "launcher" / "train.py"


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_config(tmp_path_factory.mktemp("launcher"), data)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single complaint, which is all that the ranks wrote to stderr."""
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


BAD = {
    "unknown key": (["--set", "modle.hidden=32"], ["modle", "did you mean model?"]),
    "tp and heads": (["--set", "parallel.tensor=3"], ["parallel.tensor=3", "model.heads=4"]),
    "negative lr": (["--set", "stages.0.lr.peak=-1"], ["stages.0.lr.peak = -1", "greater than 0"]),
    "ranks": (["--set", "parallel.tensor=2"], ["parallel.tensor=2", "processes=1"]),
    "micro": (["--set", "batch.micro=3"], ["batch.micro=3", "8 sequences"]),
    "length": (["--set", "model.max_length=32"], ["model.max_length=32", "16"]),
    "vocabulary": (["--set", "model.vocab_size=100"], ["model.vocab_size=100", "300", "remove it"]),
    "no data": (["--set", "data.path=/nowhere"], ["/nowhere", "dualmask data build"]),
    "no such override": (["--set", "stages"], ["key=value"]),
    "deepspeed file": (["--deepspeed_config", "/nowhere.json"], ["/nowhere.json", "No such file"]),
    "stages": (["--stages", "5"], ["--stages 5", "has 4"]),
    "profile": (["--profile", "3:99"], ["--profile 3:99", "0 to 15"]),
    "hardware": (["--hardware", "/nowhere.yaml"], ["--hardware /nowhere.yaml", "h100-80g"]),
    "resume": (["--resume", "/nowhere"], ["/nowhere", "manifest.json is missing"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configuration(case: str, config: Path) -> None:
    arguments, expected = BAD[case]
    line = one_line(tiny.train(1, config, *arguments))
    assert all(text in line for text in expected), line
    assert not (config.parent / "tiny").exists(), "nothing may be written before everything is checked"


def test_missing_and_unsafe_files(tmp_path: Path) -> None:
    assert "No such file" in one_line(tiny.train(1, tmp_path / "absent.yaml"))
    unsafe = tmp_path / "unsafe.yaml"
    unsafe.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/run']\n")
    assert "only plain YAML" in one_line(tiny.train(1, unsafe))
    assert not (tmp_path / "run").exists()


@pytest.mark.distributed
def test_bad_configuration_under_the_real_launcher(config: Path) -> None:
    line = one_line(tiny.train(2, config, "--set", "batch.sequences=7"))
    assert "batch.sequences=7 must be a multiple of the 2 data-parallel ranks" in line


@pytest.mark.distributed
def test_dry_run(config: Path) -> None:
    done = tiny.train(1, config, "--dry-run", "--set", "parallel.zero_stage=1")
    assert done.returncode == 0, done.stderr
    plan = yaml.safe_load(done.stdout)
    assert plan["steps"] == tiny.STEPS
    assert plan["deepspeed"]["zero_optimization"]["stage"] == 1
    for stage in plan["stages"]:
        assert sum(stage["parameters"].values()) == plan["parameters"]
    assert not (config.parent / "tiny").exists()


@pytest.mark.distributed
def test_never_finite(data: Path, tmp_path: Path) -> None:
    """A learning rate that destroys the model: the run says so and ends instead of skipping for ever."""
    config = tiny.write_config(tmp_path, data)
    done = tiny.train(1, config, "--set", "stages.0.lr.peak=1e30", "--set", "stages.0.steps=40")
    assert done.returncode == 1
    assert "20 steps in a row were not finite" in done.stderr
    assert "lower stages.0.lr.peak (now 1e+30)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.distributed
def test_torchrun(data: Path, tmp_path: Path) -> None:
    """torchrun starts it too, and gives the very bytes that ranks started otherwise give."""
    first, second = (tiny.write_config(tmp_path, data, name) for name in ("first", "second"))
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc_per_node=2", f"--master_port={tiny.free_port()}", SCRIPT, "--config", first]
    done = subprocess.run(command, env=tiny.environment(), cwd=tiny.ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert tiny.finish(tiny.start_ranks(2, second)) == [0, 0]
    one, other = (digest(tmp_path / name / "export" / "model.safetensors") for name in ("first", "second"))
    assert one == other


def stumble(rank: int) -> None:
    """In each rank: the second makes a mistake in its third step."""
    from dualmask.training import trainer

    learn = trainer.run_step

    def run_step(engine: Any, batch: Any, plan: Any, **arguments: Any) -> Any:
        if rank == 1 and plan.step == 2:
            raise IndexError("a mistake")
        return learn(engine, batch, plan, **arguments)

    trainer.run_step = run_step


@pytest.mark.distributed
def test_mistake_of_one_rank(data: Path, tmp_path: Path) -> None:
    """Whoever made it ends with code 1 and shows where; the others may be started again, and say so in a line."""
    attempt = warm.Ranks(2, tiny.write_config(tmp_path, data), before=stumble)
    assert attempt.codes() == [75, 1]
    innocent, culprit = (log.read_text() for log in attempt.logs)
    assert "Traceback" not in innocent
    assert "rank 0: left alone by other ranks" in innocent
    assert culprit.count("Traceback") == 1
    assert "IndexError: a mistake" in culprit


def test_utilisation_and_profile_on_tensor_parallel_ranks(config: Path, tmp_path: Path) -> None:
    """Operations are those of the whole model, whatever part of it a rank has."""
    output = tmp_path / "watched"
    hardware = tmp_path / "card.yaml"
    figures = dict.fromkeys(("memory_gib", "bf16_tflops", "memory_gb_per_s", "node_gb_per_s", "network_gb_per_s"), 1)
    hardware.write_text(yaml.safe_dump({"name": "card", "fp32_tflops": 1e-3} | figures))
    settings = [f"--set=output={output}", "--set=parallel.tensor=2", "--hardware", hardware, "--profile", "1:2"]
    warm.train(2, config, *settings, "--stages", "1")
    run = load_run(config, [])
    costs = StepCosts(run, tiny.VOCAB)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        seconds = line["tokens"] / line["tokens_per_second"]
        assert line["mfu"] == pytest.approx(costs.at(line["step"]) / seconds / (2 * 1e9), rel=1e-2)
    assert {path.suffix for path in (output / "profile").iterdir()} == {".gz", ".txt"}
