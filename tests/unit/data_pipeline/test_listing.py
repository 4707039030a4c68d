"""Which files the paths of a source name."""

import logging
import os
from pathlib import Path

import pytest
from inputs import source_of

from data_pipeline.sources import SourceError, units


def names(path: Path | str, output: Path | None = None, **keys: object) -> list[str]:
    return [unit.name for unit in units(source_of("text", path, **keys), output)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for name in ("b.txt", "a.txt", "sub/c.md", "notes.log", ".hidden.txt", ".git/d.txt", "sub/.e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_hidden_files_and_other_kinds_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert names(folder) == ["a.txt", "b.txt", "sub/c.md"]
    assert "source.paths: left out: 1 not .txt or" in caplog.text
    assert names(folder / "*") == ["a.txt", "b.txt"]
    assert names(folder / "**" / "*") == ["a.txt", "b.txt", "c.md"]


def test_a_file_by_its_name_is_read_or_refused_by_it(folder: Path) -> None:
    assert names(folder / ".hidden.txt") == [".hidden.txt"]
    with pytest.raises(SourceError, match=r"source\.paths: .*notes\.log: not \.txt or .*: name another file"):
        names(folder / "notes.log")
    with pytest.raises(SourceError, match=r"source\.paths: '.*none\.txt' matches no \.txt"):
        names(folder / "none.txt")
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(SourceError, match=r"pipe\.txt: no regular file"):
        names(folder / "pipe.txt")
    assert names(folder) == ["a.txt", "b.txt", "sub/c.md"]
    with pytest.raises(SourceError, match=r"'.*\.git' matches no \.md .*left out: 1 not \.md"):
        units(source_of("markdown", folder / ".git"))


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.txt").write_text("z")
    (folder / "0-link").symlink_to(folder / "sub")  # its files have names of their own
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "0-again.txt").symlink_to(folder / "a.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.txt").symlink_to(tmp_path / "nowhere")
    assert names(folder) == ["a.txt", "b.txt", "linked/z.txt", "sub/c.md"]
    with pytest.raises(SourceError, match=r"broken\.txt: no regular file"):
        names(folder / "broken.txt")


def test_a_file_is_read_once_in_each_split(folder: Path) -> None:
    source = source_of("text", folder).model_copy(
        update={"paths": (str(folder), str(folder / "*.txt")), "test_paths": (str(folder / "a.txt"),)}
    )
    assert [(unit.name, unit.split) for unit in units(source)] == [
        ("a.txt", "test"),
        ("a.txt", "train"),
        ("b.txt", "train"),
        ("sub/c.md", "train"),
    ]


def test_a_build_does_not_read_its_output(folder: Path) -> None:
    output = folder / "out"
    output.mkdir()
    (output / "dev.txt").write_text("x")
    assert names(folder, output) == ["a.txt", "b.txt", "sub/c.md"]
    assert names(folder) == ["a.txt", "b.txt", "out/dev.txt", "sub/c.md"]
    with pytest.raises(SourceError, match=r"dev\.txt: in the output folder"):
        names(output / "dev.txt", output)
    with pytest.raises(SourceError, match=r"matches no .*left out: 1 in the output folder"):
        names(output / "*.txt", output)


def test_addresses_of_this_machine(folder: Path) -> None:
    assert names(f"file://{folder}/a.txt") == ["a.txt"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/x.txt", r"source\.paths: 's3://bucket/x\.txt' cannot be opened: .*s3fs"),
        ("gs://bucket/x.txt", r"'gs://bucket/x\.txt' cannot be opened: .*gcsfs"),
        ("nosuch://x/x.txt", "Protocol not known"),
    ],
)
def test_missing_packages_are_named(address: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        names(address)
    assert "\n" not in str(refused.value)
