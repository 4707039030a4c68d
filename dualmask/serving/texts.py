"""Texts in and out of a terminal: UTF-8 bytes, nothing lost, one clear line for what is not text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from dualmask.serving.options import Source

READER_GONE = 141  # as a shell reports SIGPIPE

Made = TypeVar("Made")


def read_texts(source: Source, *, empty_allowed: bool) -> list[str]:
    """The texts to work on. One line break at the end of a file or of stdin is not part of the text.

    empty_allowed: without TEXT and --file the text is empty; otherwise stdin is read. Raises ValueError, OSError.
    """
    if source.text is not None and source.file is not None:
        raise ValueError("both TEXT and --file are given: leave one of them out")
    if source.lines and source.text is not None:
        raise ValueError("--lines reads a file or stdin, but TEXT is given: leave one of them out")
    if source.text is not None:
        return [_argument(source.text)]
    if source.file is None and empty_allowed and not source.lines:
        return [""]
    whole = _file(source.file)
    if not source.lines:
        return [whole.removesuffix("\n")]
    return [*whole.split("\n")[:-1], *filter(None, [whole.rpartition("\n")[2]])]


def for_each(texts: Sequence[str], source: Source, make: Callable[[str], Made]) -> list[Made]:
    """What ``make`` makes of each text; its ValueError names the line."""
    made = []
    for number, text in enumerate(texts, 1):
        try:
            made.append(make(text))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}" if source.lines else str(error)) from None
    return made


def print_text(text: str, *, one_line: bool) -> None:
    """One text on stdout, as UTF-8 whatever the locale; with ``one_line`` its line breaks become spaces."""
    text = text.replace("\n", " ") if one_line else text
    try:
        sys.stdout.buffer.write(text.encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # nobody reads any more, as behind `| head`: what is still buffered must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(READER_GONE) from None


def _argument(text: str) -> str:
    """Bytes of an argument that are not UTF-8 arrive as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        raise ValueError(f"TEXT is not UTF-8: byte 0x{byte:02X} behind {error.start} characters; convert it") from None
    return text


def _file(name: str | None) -> str:
    shown = "stdin" if name in (None, "-") else str(name)
    if name is None and sys.stdin.isatty():
        raise ValueError("no text: give TEXT, --file FILE, or pipe it in")
    data = sys.stdin.buffer.read() if name in (None, "-") else Path(str(name)).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"byte 0x{data[error.start]:02X} at byte {error.start} (line {line})"
        raise ValueError(f"{shown} is not UTF-8: {where}; convert it, for instance with iconv") from None
