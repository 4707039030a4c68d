"""Loading: everything that is wrong with a file is one line that names file, key and value."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmask.config.load import ConfigError, check, digest, dump, flatten, load_run
from dualmask.config.schema import RunConfig

TREE: dict[str, Any] = {
    "name": "x",
    "output": "runs/x",
    "data": {"path": "data"},
    "stages": [
        {"name": "filler", "steps": 5, "train": ["filler"], "lr": {"peak": 0.001}},
        {"name": "picker", "steps": 5, "train": ["picker"], "lr": {"peak": 0.001}, "losses": {"keep_recover": 1.0}},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TREE))
    return path


def complaint(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_run(file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides(file: Path) -> None:
    run = load_run(
        file,
        [
            "stages.1.steps=7",
            "stages.0.lr.peak=1e-4",
            "optimizer={clip: 2.5}",
            "batch.micro=4",
            "stages.1.losses.ptr_count={start: 1, end: 0.1, shape: cosine}",
        ],
    )
    assert run.stages[1].steps == 7
    assert run.stages[0].lr.peak == 1e-4
    assert run.optimizer.clip == 2.5
    assert run.batch.micro == 4
    assert run.stages[1].losses.ptr_count.at(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.0.stepz=3", ["stages.0.stepz is not a key", "did you mean stages.0.steps?"]),
        ("clip=1", ["clip is not a key", "did you mean optimizer.clip?"]),
        ("keep_recover=1", ["did you mean stages.0.losses.keep_recover?"]),
        ("zzz=1", ["zzz is not a key", "allowed here: name, output"]),
        ("stages.0.lr.peak=-1", ["stages.0.lr.peak = -1", "greater than 0"]),
        ("stages.0.lr.peak=.nan", ["stages.0.lr.peak = nan"]),
        ("stages.1.losses.recon=.inf", ["stages.1.losses.recon.start = inf", "finite"]),
        ("parallel.tensor=3", ["parallel.tensor=3", "model.heads=4"]),
        ("model.hidden=130", ["model", "hidden=130", "heads=4"]),
        ("parallel.precision=fp8", ["parallel.precision = 'fp8'", "'fp32' or 'bf16'"]),
        ("model.estimator=reinforce", ["stage picker, rollout.samples=1", "set it to 4"]),
        ("stages.0.train=[picker]", ["stages.0", "filler"]),
        ("stages.0.deletion={keep_rate_low: 1, keep_rate_high: 1}", ["stages.0", "both 1", "lower one"]),
        ("stages.5.steps=1", ["stages has entries 0 to 1, not '5'"]),
        ("stages.last.steps=1", ["stages has entries 0 to 1, not 'last'"]),
        ("name.first=1", ["name is 'x', which has no keys"]),
        ("name", ["write it as key=value"]),
        ("a..b=1", ["write it as key=value"]),
        ("stages=[]", ["stages = []", "at least 1"]),
        ("data={}", ["data.path", "is missing"]),
        ("data.sources=[{path: b}]", ["data.path=data excludes data.sources"]),
        ("data={sources: []}", ["data.sources = []", "at least 1"]),
        ("data={sources: [{path: a, weight: 0}]}", ["data.sources.0.weight = 0", "greater than 0"]),
        ("data={sources: [{path: a, epoch: 1}]}", ["did you mean data.sources.0.epochs?"]),
        ("data.path=3", ["data.path = 3", "not a valid path"]),
        ("seed=[1", ["--set seed"]),
        ("seed=!!python/name:os.system", ["--set seed", "only plain YAML"]),
    ],
)
def test_what_is_wrong_is_named(file: Path, override: str, expected: list[str]) -> None:
    line = complaint(file, override)
    assert all(text in line for text in expected), line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty; it needs at least name, output, data, stages"),
        ("just words", "holds 'just words'"),
        ("name: a\nname: b\n", "line 2 key 'name' is given twice"),
        ("data: {path: a, path: b}\n", "key 'path' is given twice"),
        ("x: !!python/object/apply:os.system [true]\n", "only plain YAML"),
        ("a: [", "line 1"),
        ("a: \t- b", "line 1"),
        ("? [a]\n: b\n", "a key must be a word"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("[" * 3000, "nested too deeply"),
        ("a: *nothing", "undefined alias"),
    ],
)
def test_what_no_file_may_hold(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    line = complaint(path)
    assert line.startswith(str(path))
    assert expected in line


def test_unreadable_files(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "absent.yaml")
    assert "Is a directory" in complaint(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in complaint(tmp_path / "bytes.yaml")


def test_dump_reads_back(file: Path, tmp_path: Path) -> None:
    run = load_run(file)
    (tmp_path / "again.yaml").write_text(dump(run))
    again = load_run(tmp_path / "again.yaml")
    assert again == run
    assert digest(again) == digest(run)
    assert digest(load_run(file, ["seed=2"])) != digest(run)


def test_flatten(file: Path) -> None:
    flat = flatten(load_run(file))
    assert flat["stages.1.losses.keep_recover.start"] == 1.0
    assert flat["stages.0.train.0"] == "filler"
    assert flat["stages.0.lr_scale"] == {}


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of a tree, inner and outer."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in pairs for place in ((*path, key), *places(value, (*path, key)))]


WHOLE = RunConfig.model_validate(TREE).model_dump(mode="json")
RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(places(WHOLE)), value=RUBBISH)
def test_any_value_is_valid_or_its_key_is_named(place: tuple[Any, ...], value: Any) -> None:
    tree = copy.deepcopy(WHOLE)
    section: Any = tree
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    line = outcome(lambda: check(tree, RunConfig, "file"))
    assert "\n" not in line
    if line:  # a contradiction between two keys is reported where both are known
        assert any(part in line for part in place if isinstance(part, str)), line


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_an_error_of_one_line(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert str(path) in complaint(path)


@settings(max_examples=200, deadline=None)
@given(override=st.text(max_size=30))
def test_any_override_is_valid_or_an_error_of_one_line(override: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    path.write_text(yaml.safe_dump(TREE))
    assert "\n" not in outcome(lambda: load_run(path, [override]))


def outcome(load: Callable[[], RunConfig]) -> str:
    """The complaint, or nothing."""
    try:
        load()
    except ConfigError as error:
        return str(error)
    return ""


def test_a_path_is_one_source_and_an_address_keeps_its_slashes(file: Path) -> None:
    one = load_run(file).data
    assert [(source.path, source.weight, source.epochs) for source in one.mixture] == [(Path("data"), 1.0, None)]
    assert (one.folder, one.name, one.paths) == (Path("data"), "data", ["data"])
    several = load_run(file, ["data={sources: [{path: s3://bucket/web, weight: 2}, {path: more/books/}]}"]).data
    assert several.paths == ["s3://bucket/web", "more/books"]
    assert several.name == "web+books"
    assert several.folder.is_absolute()  # of the cache
    assert several.folder != load_run(file, ["data.path=s3://bucket/web2"]).data.folder
