from pathlib import Path

import pytest

from data_pipeline import embedded


def test_documents_are_sorted_unique_and_of_three_kinds() -> None:
    documents = embedded.documents()
    names = [name for name, _ in documents]
    assert names == sorted(set(names))
    assert {name.partition(":")[0] for name in names} == {"module", "topic", "package"}
    assert {"module:argparse", "topic:with", "module:numpy"} <= set(names)
    assert not [name for name in names if ".tests." in name]


def test_docstrings_are_read_in_order_and_nothing_is_run(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text(
        '"""Module."""\nraise SystemExit\nclass A:\n    """Class.\n\n        Body.\n    """\n    def f(self): "not"\n'
        "    async def g(self):\n        '''Method.'''\n        def h():\n            '''Inner.'''\n"
    )
    assert embedded.read("module:m", str(source)) == ["Module.", "Class.\n\nBody.", "not", "Method.", "Inner."]


@pytest.mark.parametrize("content", [b'"""', b"\xff'''\xfe", b"'''\x00'''", b"x = 1", b"(" * 500 + b'"""'])
def test_broken_sources_have_no_docstrings(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "m.py"
    source.write_bytes(content)
    assert embedded.read("module:m", str(source)) == []


def test_description_of_a_package(tmp_path: Path) -> None:
    metadata = tmp_path / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: x\n\nThe text of the “description”.\n", encoding="utf-8")
    assert embedded.read("package:x", str(metadata)) == ["The text of the “description”.\n"]
