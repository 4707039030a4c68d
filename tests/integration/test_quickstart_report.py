"""The last step of `make train`, on a model that nobody trained."""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_model import CONFIG

from dualmask.families.edit.evaluate import adaptive, editing
from launcher import quickstart

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(model_folder: Path, tmp_path: Path) -> Path:
    """The shipped configuration with a run and a held-out part of its own."""
    tree = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    tree |= {"output": str(tmp_path / "run"), "model": CONFIG.model_dump(mode="json")}
    tree["data"]["path"] = str(tmp_path)
    shutil.copytree(model_folder, tmp_path / "run" / "export")
    texts = [" ".join(text.split())[:2000] for text in sorted(pydoc_data.topics.topics.values())]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    path = tmp_path / "quickstart.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_report_measures_once_and_leaves_plots_and_a_page(config: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(quickstart, "SEQUENCES", 32)
    monkeypatch.setattr(quickstart, "TEXTS", 16)
    monkeypatch.setattr("sys.argv", ["quickstart", "--config", str(config)])
    quickstart.main()
    said = capsys.readouterr().out
    for words in ("Share of deleted tokens restored", "ROC area of the Gate", "share of rounds saved", "round 1, gate"):
        assert words in said
    run = config.parent / "run"
    result = json.loads((run / "results.json").read_text())
    assert {row["suite"] for row in result["rows"]} == {"quickstart", "editing", "everyday", "adaptive"}
    assert "<script" in (run / "example.html").read_text()
    assert all((run / f"{name}.png").is_file() for name in ("results", "editing", "adaptive"))

    def measured(*_: object, **__: object) -> None:
        raise AssertionError("figures of a known model are measured again")

    monkeypatch.setattr(editing, "evaluate", measured)
    monkeypatch.setattr(adaptive, "evaluate", measured)
    quickstart.main()
    assert "ROC area of the Gate" in capsys.readouterr().out
    (run / "results.json").write_text(json.dumps(result | {"model_sha256": "another"}))
    with pytest.raises(AssertionError, match="measured again"):
        quickstart.main()
