"""``~`` and environment variables in the paths of configurations."""

from pathlib import Path

import pytest

from dualmask.config.data import DataBuildConfig
from dualmask.config.load import ConfigError, load_run, load_yaml_model

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOWHERE", raising=False)


def test_paths_of_a_run() -> None:
    keys = [
        "output=~/runs/a",
        "data.path=$SCRATCH/data",
        "init=${SCRATCH}/model",
        "tracking.uri=sqlite:///$SCRATCH/m.db",
    ]
    run = load_run(CONFIGS / "quickstart.yaml", keys)
    assert (run.output, run.data.path, run.init) == (
        Path("/home/me/runs/a"),
        Path("/scratch/data"),
        Path("/scratch/model"),
    )
    assert run.tracking.uri == "sqlite:////scratch/m.db"


def test_paths_of_a_build() -> None:
    keys = ["source.paths=[~/a/*.jsonl,s3://$SCRATCH/b]", "source.document_start=^$x", "tokenizer.model=~/t"]
    build = load_yaml_model(CONFIGS / "data" / "jsonl.yaml", DataBuildConfig, keys)
    assert build.source.paths == ("/home/me/a/*.jsonl", "s3:///scratch/b")
    assert build.tokenizer.model == Path("/home/me/t")
    assert build.source.document_start == "^$x"  # not a path


def test_the_base_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGS", str(CONFIGS))
    (tmp_path / "mine.yaml").write_text("base: $CONFIGS/quickstart.yaml\nname: mine\n")
    assert load_run(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("$NOWHERE/x", r"output: '\$NOWHERE/x': there is no environment variable NOWHERE: set it"),
        ("~nobody-here/x", r"output: '~nobody-here/x': there is no home folder for it: set HOME"),
    ],
)
def test_what_is_not_there_is_one_line(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(CONFIGS / "quickstart.yaml", [f"output={value}"])
