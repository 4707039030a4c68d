"""A corpus of English text that every Python installation contains, so that no download is needed.

It consists of the docstrings of the standard library and of all installed packages, the language reference inside
``pydoc``, and the packages' descriptions. Sources are parsed, never imported, and read in a fixed order.
"""

from __future__ import annotations

import ast
import email
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_SKIPPED_FOLDERS = {
    "__pycache__",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "_vendor",
    "vendored",
}
_MAX_SOURCE_BYTES = 2_000_000  # larger files are generated tables


def documents() -> list[tuple[str, str]]:
    """(id, path) of every document, sorted by id: ``module:…`` and ``package:…`` with a file, ``topic:…`` without."""
    paths = {f"topic:{name}": "" for name in _topics()}
    packages = dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
    for root in (Path(sysconfig.get_path("stdlib")), *packages):
        for source in _python_files(root):
            name = source.relative_to(root).with_suffix("").as_posix().replace("/", ".")
            paths.setdefault(f"module:{name.removesuffix('.__init__')}", str(source))
    for root in packages:
        for metadata in sorted(root.glob("*.dist-info/METADATA")):
            paths.setdefault(f"package:{metadata.parent.name.removesuffix('.dist-info')}", str(metadata))
    return sorted(paths.items())


def read(name: str, path: str) -> list[str]:
    """The raw texts of one document: its docstrings in source order, or the one text of a topic or package."""
    kind, _, topic = name.partition(":")
    if kind == "topic":
        return [_topics()[topic]]
    content = Path(path).read_bytes()
    if kind == "package":
        payload = email.message_from_bytes(content).get_payload(decode=True)
        return [payload.decode("utf-8", "replace")] if isinstance(payload, bytes) else []
    if b'"""' not in content and b"'''" not in content:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's sources
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
    return list(_docstrings(tree))


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str(text))), *_]:
            yield inspect.cleandoc(text)
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(child)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        for file in sorted(files):
            path = Path(folder, file)
            if file.endswith(".py") and path.stat().st_size <= _MAX_SOURCE_BYTES:
                yield path


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics  # a plain dict in the standard library

    return dict(topics)
