"""Makes the golden record: ``python tests/golden/record.py OUT.json``. A refactor reproduces it to the last digit.

Losses of 20 steps of every stage of every family (fp32, one process, fixed data), the weights that they lead to, and
what each command prints when it is given these models.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import tiny
import tiny_model
import torch
import warm
import yaml
from runs import RUNS, SMALL
from safetensors.torch import load_file

from launcher import command, plan

TEXT = "The value of a name is the object that it is bound to. "
# figures that depend on the clock
TIMED = ("seconds", "speedup", "tokens_per_second", "milliseconds", "time")


def fingerprint() -> dict[str, str]:
    """Floating-point sums depend on the processor's vector units and on torch's kernels."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {"cpu": cpu, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def record(folder: Path) -> dict[str, Any]:
    tiny.LENGTH = SMALL["max_length"]
    data = tiny.make_data(folder / "data")
    tiny_model.make_model_folder(folder / "decided")
    return {
        "machine": fingerprint(),
        "losses": {name: losses(name, folder, data) for name in RUNS},
        "weights": {name: weights(folder / name) for name in RUNS},
        "data": build(folder),
        "commands": {name: said(arguments) for name, arguments in commands(folder).items()},
        "eval": {name: evaluated(arguments, folder) for name, arguments in suites(folder).items()},
        "plan": {name: planned(folder / f"{name}.yaml", folder) for name in RUNS},
    }


def losses(name: str, folder: Path, data: Path) -> list[dict[str, Any]]:
    run = RUNS[name]
    tree = {"stages": run["stages"], "checkpoint": {"every_steps": 1000}, "parallel": {"zero_stage": 1}}
    config = tiny.write_config(folder, data, name, **tree)
    written = yaml.safe_load(config.read_text()) | {"model": run["model"]}
    config.write_text(yaml.safe_dump(written, sort_keys=False))
    warm.train(1, config)
    return [
        {"stage": line["stage"], **line["losses"], "grad_norm": line["grad_norm"], "keys": line["keys"]}
        for line in tiny.read_record(folder / name)
    ]


def weights(output: Path) -> dict[str, str]:
    tensors = load_file(output / "export" / "model.safetensors")
    return {name: hashlib.sha256(tensors[name].numpy().tobytes()).hexdigest()[:16] for name in sorted(tensors)}


def build(folder: Path) -> dict[str, str]:
    """``dualmask data build`` on a few documents: digests of all that it writes."""
    from pydoc_data.topics import topics

    source = folder / "texts.jsonl"
    lines = [json.dumps({"id": name, "text": text}) for name, text in sorted(topics.items())]
    source.write_text("\n".join(lines) + "\n")
    config = folder / "build.yaml"
    config.write_text(
        f"output: {folder / 'built'}\nsource: {{kind: jsonl, paths: [{source}]}}\n"
        "tokenizer: {vocab_size: 1000}\nmax_length: 32\nworkers: 1\n"
    )
    with contextlib.redirect_stderr(io.StringIO()):
        assert command.run(["data", "build", "--config", str(config)]) == 0
    names = ["tokenizer.model", "test.jsonl", *sorted(path.name for path in (folder / "built").glob("*.tar"))]
    return {name: hashlib.sha256((folder / "built" / name).read_bytes()).hexdigest()[:16] for name in names}


def commands(folder: Path) -> dict[str, list[str]]:
    model, span = ["--model", str(folder / "dualmask")], ["--model", str(folder / "spanfusion")]
    decided = ["--model", str(folder / "decided")]
    drawn = ["--temperature", "0.8", "--top-p", "0.9", "--seed", "3"]
    return {
        "edit": ["edit", *model, TEXT, "--json", "--no-protect"],
        "edit decided": ["edit", *decided, TEXT * 4, "--json", "--rounds", "4", "--no-protect"],
        "auto decided": [
            "auto",
            *decided,
            TEXT * 4,
            "--json",
            "--growth-schedule",
            "cosine",
            "--stop-distance",
            "0.05",
            "--no-protect",
        ],
        "auto drawn": [
            "auto",
            *decided,
            TEXT,
            "--json",
            "--no-protect",
            *drawn,
            "--place-temperature",
            "0.5",
            "--fill-steps",
            "2",
        ],
        "edit keep-rate": ["edit", *model, TEXT * 3, "--json", "--keep-rate", "0.6", "--rounds", "3", "--lock", "name"],
        "edit drawn": ["edit", *model, TEXT, "--json", "--keep-rate", "0.6", *drawn, "--place-temperature", "0.5"],
        "edit threshold": ["edit", *model, TEXT, "--json", "--edit-threshold", "0.3", "--growth", "4", "--no-protect"],
        "auto": ["auto", *model, TEXT * 2, "--json", "--gate-threshold", "0.2", "--no-protect"],
        "generate": ["generate", *model, TEXT, "--json", "--anywhere", "--growth", "12", "--rounds", "4", *drawn],
        "generate steps": [
            "generate",
            *model,
            TEXT,
            "--json",
            "--anywhere",
            "--growth",
            "9",
            "--fill-steps",
            "3",
            "--remask",
        ],
        "generate nothing": ["generate", *model, "--json", "--growth-schedule", "cosine", "--growth", "20"],
        "summarize": ["summarize", *model, TEXT, "--json", "--keep-rate", "0.5", "--rounds", "2"],
        "infill": ["infill", *model, "The ___ of a name ___ bound.", "--json", "--tokens", "2"],
        "infill open": ["infill", *model, "The {} of a name.", "--hole", "{}", *drawn],
        "span learned": ["generate", *span, "the", "--json", "--span", "4", "--tokens", "10"],
        "span accurate": ["generate", *span, "the", "--json", "--span", "4", "--gate", "accurate", *drawn],
        "span fixed": ["generate", *span, "", "--json", "--gate", "fixed:2"],
    }


def said(arguments: list[str]) -> list[Any]:
    """What a command prints: JSON as it is, text as lines."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(stream):
        assert command.run(arguments) == 0, arguments
    stream.seek(0)
    return [json.loads(line) if line.startswith("{") else line for line in stream.read().splitlines()]


def suites(folder: Path) -> dict[str, list[str]]:
    data = folder / "held-out.jsonl"
    rows = [json.loads(line)["text"] for line in (folder / "built" / "test.jsonl").read_text().splitlines()]
    data.write_text("".join(json.dumps({"text": row[:400]}) + "\n" for row in rows))
    given = ["--data", str(data)]
    model, span = ["--model", str(folder / "dualmask"), *given], ["--model", str(folder / "spanfusion"), *given]
    decided = ["--model", str(folder / "decided"), *given]
    scorer = str(folder / "autoregressive")
    short = ["--prompts", "4", "--length", "24", "--limit", "16", "--temperatures", "0.5,1.0", "--steps", "4"]
    short += ["--passes", "2,4", "--diffusion", str(folder / "diffusion")]
    return {
        "reconstruction": ["reconstruction", *model, "--rates", "0.3", "--limit", "32"],
        "gaps": ["gaps", *model, "--rates", "0.3", "--limit", "32"],
        "editing decided": ["editing", *decided, "--rounds", "1,2", "--limit", "16"],
        "adaptive decided": ["adaptive", *decided, "--rounds", "3", "--limit", "16"],
        "editing": ["editing", *model, "--typos", "--rounds", "1,2", "--limit", "16", "--corruption-rate", "0.2"],
        "adaptive": ["adaptive", *model, "--rounds", "3", "--limit", "16"],
        "generation": ["generation", *model, *short, "--ar", scorer, "--order", "confidence"],
        "generation judged": ["generation", *model, *short, "--scorer", scorer],
        "span": ["span", *span, "--span", "6", "--spans", "2", "--limit", "16", "--repeats", "5", "--scorer", scorer],
    }


def evaluated(arguments: list[str], folder: Path) -> list[dict[str, Any]]:
    """The rows of a suite, without what depends on the clock."""
    out = folder / "out.json"
    with contextlib.redirect_stdout(io.StringIO()):
        assert command.run(["eval", *arguments, "--json", str(out)]) == 0, arguments
    rows = json.loads(out.read_text())["rows"]
    return [row for row in rows if not any(word in row["metric"] for word in TIMED)]


def planned(config: Path, folder: Path) -> list[dict[str, Any]]:
    """The figures of ``python -m launcher.plan``."""
    out = folder / "plan.json"
    with contextlib.redirect_stdout(io.StringIO()):
        code = plan.main(["--config", str(config), "--nodes", "1", "--gpus-per-node", "2", "--json", str(out)])
    assert code == 0, config
    return list(json.loads(out.read_text())["rows"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        made = record(Path(temporary))
    Path(sys.argv[1]).write_text(json.dumps(made, indent=0, ensure_ascii=False, allow_nan=True) + "\n")
