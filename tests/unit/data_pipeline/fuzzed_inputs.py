"""Reads damaged inputs in a process of its own, where a crash is seen: ``python fuzzed_inputs.py FOLDER FIRST STOP``.

Prints one JSON object a seed: which input, what was read, and what is wrong with that (empty if nothing is).
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from inputs import KINDS, PACKINGS, Records, read_all, source_of

from data_pipeline.opening import UNREADABLE, opened
from data_pipeline.sources import Document, Skipped, SourceError

RECORDS = [{"id": f"d{n}", "text": f"Document {n} says: {'words of text, ' * (n % 9)}über {n}."} for n in range(60)]
SECONDS = 30  # one input
FORMATS = {
    **KINDS,
    "text": ("text", "x.txt", lambda records: "".join(record["text"] + "\n" for record in records).encode()),
}


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] = draw.randrange(256)


def zero(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.randint(1, 600))
    content[start:stop] = bytes(stop - start)


def cut_off(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def take_out(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.randint(1, 600)]


def put_in(content: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(content) + 1)
    content[place:place] = draw.randbytes(draw.randint(1, 600))


def repeat(content: bytearray, draw: random.Random) -> None:
    start, place = draw.randrange(len(content)), draw.randrange(len(content))
    content[place:place] = content[start : start + draw.randint(1, 600)]


def append(content: bytearray, draw: random.Random) -> None:
    content += draw.randbytes(draw.randint(1, 600))


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [flip, zero, cut_off, take_out, put_in, repeat, append]


def damaged(seed: int, folder: Path) -> tuple[str, str, Path, int]:
    """Name of the format, of the damage, and the file."""
    draw = random.Random(seed)
    name, packing = list(FORMATS)[seed % len(FORMATS)], draw.choice(list(PACKINGS))
    _, file, write = FORMATS[name]
    records: Records = RECORDS
    content = bytearray(PACKINGS[packing](write(records)))
    damage = draw.choice(DAMAGES)
    damage(content, draw)
    path = folder / f"{file}{packing}"
    path.write_bytes(content)
    return f"{name}{packing}", damage.__name__, path, seed


def wrong(name: str, path: Path, documents: list[Document], skipped: list[Skipped]) -> str:
    """What the reader has lost without saying so."""
    if any(not item.reason or item.file != str(path) or item.records < 1 for item in skipped):
        return f"a loss without a name: {skipped}"
    if any(not item.place for item in skipped):
        return ""  # the whole file, or all the rest of it
    try:
        with opened(str(path)) as stream:
            content = stream.read()
    except UNREADABLE:
        return "" if skipped else "the file cannot be unpacked, and nothing was said"
    if name.startswith(("jsonl", "text", "csv")):
        return _wrong_lines(name, content, documents, skipped)
    lost = len(RECORDS) - len(documents)
    return f"{lost} records are lost in silence" if lost > 0 and not skipped else ""


def _wrong_lines(name: str, content: bytes, documents: list[Document], skipped: list[Skipped]) -> str:
    """Every line with something on it is in a document or among the skipped."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    if name.startswith("text"):
        whole = [doc.stop - doc.start for doc in documents] == [len(content)]
        return "" if whole or skipped else "a text is not whole"
    read = sum(len([line for line in content[doc.start : doc.stop].split(b"\n") if line.strip()]) for doc in documents)
    counted = read + sum(item.records for item in skipped) + name.startswith("csv")
    if any("behind" in item.place for item in skipped):
        return ""
    if name.startswith("csv") and skipped:  # a row that is left out may have had line breaks in its fields
        counted = max(counted, len(lines) if len(documents) + len(skipped) >= len(RECORDS) else 0)
    return "" if counted >= len(lines) else f"{len(lines)} lines, of which {counted} are accounted for"


def check(seed: int, folder: Path) -> dict[str, object]:
    name, damage, path, _ = damaged(seed, folder)
    kind = FORMATS[name.partition(".")[0]][0]
    result: dict[str, object] = {"seed": seed, "input": name, "damage": damage}
    try:
        documents, skipped = read_all(source_of(kind, path, on_error="skip", max_errors=10**6))
        result |= {"documents": len(documents), "skipped": len(skipped), "wrong": wrong(name, path, documents, skipped)}
        refused = _refusal(kind, path)
        if bool(skipped) != bool(refused):
            result["wrong"] = f"on_error=fail says {refused!r}"
        elif "\n" in refused:
            result["wrong"] = f"more than one line: {refused!r}"
    except Exception as error:
        result["wrong"] = f"{type(error).__name__}: {error}"
    path.unlink()
    return result


def _refusal(kind: str, path: Path) -> str:
    try:
        read_all(source_of(kind, path))
    except SourceError as error:
        return str(error)
    return ""


def main(folder: Path, first: int, stop: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    for seed in range(first, stop):
        print(json.dumps({"started": seed}), flush=True)
        signal.alarm(SECONDS)
        print(json.dumps(check(seed, folder)), flush=True)
    print(json.dumps({"peak megabytes": peak_megabytes()}))


def peak_megabytes() -> int:
    """Of this program alone: the ``ru_maxrss`` of a process begins with what its parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
