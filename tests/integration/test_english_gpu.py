"""`make english-gpu` needs neither MLflow nor Ray nor webdataset: the machine of a card may have no network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import LENGTH, make_data

from dualmask.config.load import load_run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "english_gpu.yaml"
SMALL = {
    "model.hidden": 32,
    "model.heads": 2,
    "model.filler_layers": 1,
    "model.inserter_layers": 1,
    "model.picker_layers": 1,
    "model.max_length": LENGTH,
    "batch.sequences": 8,
}
HIDE = "import sys, runpy; sys.modules.update(dict.fromkeys(['mlflow', 'ray', 'webdataset'])); "
START = "sys.argv[0] = 'launcher/train.py'; runpy.run_path(sys.argv[0], run_name='__main__')"


def test_it_trains_all_stages_without_what_such_a_machine_lacks(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", dev=16)
    settings = SMALL | {"data.path": data, "output": tmp_path / "run"}
    for number, stage in enumerate(yaml.safe_load(CONFIG.read_text())["stages"]):
        settings |= {f"stages.{number}.steps": 2, f"stages.{number}.lr.warmup_steps": 1}
        assert stage in ("filler", "inserter", "picker", "joint")
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", HIDE + START, "--config", str(CONFIG), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("tokens_per_second" in record for record in records) == 8
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()


@pytest.mark.parametrize(("name", "least", "most"), [("english", 0, 12e6), ("english_gpu", 12e6, 20e6)])
def test_sizes(name: str, least: float, most: float) -> None:
    import torch

    from dualmask.families.edit.model import DualMask
    from dualmask.nn.parallel import mesh

    mesh.single_process()
    run = load_run(ROOT / "configs" / f"{name}.yaml")
    with torch.device("meta"):
        model = DualMask(run.model, 9600)
    assert least < sum(parameter.numel() for parameter in model.parameters()) < most
