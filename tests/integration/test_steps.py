"""Steps of a build on a real Ray: what is finished is not made again, errors leave the rest in peace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.cluster import running_ray
from data_pipeline.steps import Result, Step, discard


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    with running_ray(2):
        yield


def run(step: Step, lines: dict[str, str], ending: str = ".") -> list[Result]:
    def write(folder: Path, key: str, line: str, ending: str) -> Result:
        if not line:
            raise ValueError(f"{key} has no line")
        (folder / f"{key}.txt").write_text(line + ending)
        return {"length": len(line)}

    return list(step.run(write, {key: {"line": line} for key, line in lines.items()}, ending=ending))


def texts(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in folder.glob("*.txt")}


def test_only_blocks_without_a_record_are_made(tmp_path: Path) -> None:
    lines = {f"{number:03d}": "x" * number for number in range(1, 20)}
    step = Step(tmp_path / "step", "inputs")
    assert run(step, lines) == [{"length": number} for number in range(1, 20)]
    step.record("007").unlink()
    again = Step(tmp_path / "step", "inputs")
    assert run(again, lines, ending="!") == [{"length": number} for number in range(1, 20)]
    assert [key for key, text in texts(step.folder).items() if text.endswith("!")] == ["007"]


def test_blocks_of_other_inputs_are_removed(tmp_path: Path) -> None:
    run(Step(tmp_path / "step", "inputs"), {"a": "1", "b": "2"})
    run(Step(tmp_path / "step", "other inputs"), {"b": "3"})
    assert texts(tmp_path / "step") == {"b": "3."}


def test_a_step_that_was_discarded_halfway_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Step(tmp_path / "step", "inputs"), {"a": "1", "b": "2"})
    monkeypatch.setattr("shutil.rmtree", lambda folder, ignore_errors: (folder / "a.txt").unlink())
    discard(tmp_path / "step")  # killed after its first file
    monkeypatch.undo()
    run(Step(tmp_path / "step", "inputs"), {"a": "1", "b": "2"})
    assert texts(tmp_path / "step") == {"a": "1.", "b": "2."}


def test_an_error_of_a_task_is_raised_and_finished_blocks_stay(tmp_path: Path) -> None:
    step = Step(tmp_path / "step", "inputs")
    with pytest.raises(ValueError, match="z has no line"):
        run(step, {"a": "1", "b": "2", "z": ""})
    assert not step.record("z").exists()
    run(step, {"a": "changed", "z": "3"})
    assert texts(step.folder)["z"] == "3."
