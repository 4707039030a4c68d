"""Reads folders with a damaged shard in a process of its own: ``python fuzzed_shards.py FOLDER FIRST STOP``.

Prints one JSON object a seed: how the shard was damaged, who named it, and what is wrong with that (empty if nothing
is). A forged shard is one that the manifest describes as it is: only what it holds can tell.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import signal
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzzed_inputs import DAMAGES, peak_megabytes
from shard_folders import LENGTH, VOCAB, make_block, row_number, write_folder

from data_pipeline.endless import Source
from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest, Member, ShardInfo
from data_pipeline.reader import ShardReader, Share, evaluation_batches
from data_pipeline.shards import member_name
from data_pipeline.store import MemberStore
from data_pipeline.verify import verify_shards
from dualmask.core.tokenizer import PAD_ID

ROWS, PER_MEMBER, MEMBERS = 96, 8, 4
SHARD_ROWS = PER_MEMBER * MEMBERS
SECONDS = 60  # one folder
ESCAPED = "escaped"  # a file that is there if code of a shard was run, or its names were followed

Entry = tuple[tarfile.TarInfo, bytes]
Forgery = Callable[[tarfile.TarInfo, bytearray, random.Random], bytes]


class _Code:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._file,)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=(1, 0))
    return content.getvalue()


def header(text: str) -> Forgery:
    """A member whose array is described so."""
    line = text.encode().ljust(118) + b"\n"
    return lambda entry, content, draw: b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(256)


def pickled(entry: tarfile.TarInfo, content: bytearray, draw: random.Random) -> bytes:
    array = np.empty(PER_MEMBER, object)
    array[:] = [_Code(Path(ESCAPED).absolute())] * PER_MEMBER
    return npy(array) if draw.random() < 0.5 else pickle.dumps(array)


def block(change: Callable[[np.ndarray, random.Random], np.ndarray]) -> Forgery:
    """A member whose array is changed by ``change(rows [R, T], draw)``."""
    return lambda entry, content, draw: npy(change(make_block(0, PER_MEMBER), draw))


def put(value: int, place: int | None = None) -> Forgery:
    """An id where it must not be; anywhere within the shortest text if no ``place`` is given."""

    def change(rows: np.ndarray, draw: random.Random) -> np.ndarray:
        rows[draw.randrange(len(rows)), draw.randrange(1, 9) if place is None else place] = value
        return rows

    return block(change)


def named(name: str) -> Forgery:
    def change(entry: tarfile.TarInfo, content: bytearray, draw: random.Random) -> bytes:
        entry.name = name
        return bytes(content)

    return change


def linked(kind: bytes) -> Forgery:
    def change(entry: tarfile.TarInfo, content: bytearray, draw: random.Random) -> bytes:
        entry.type, entry.linkname = kind, f"../{ESCAPED}"
        return bytes(content)

    return change


def random_header(entry: tarfile.TarInfo, content: bytearray, draw: random.Random) -> bytes:
    """Not one byte of the description is what it was."""
    content[10:127] = bytes(draw.choice(b"{}[]()'\"-,:_09ai<\\\n ") for _ in range(117))
    return bytes(content)


DESCRIPTION = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"
FORGERIES: dict[str, Forgery] = {
    "a pickle": pickled,
    "an id that is not in the vocabulary": put(VOCAB),
    "the greatest id": put(2**16 - 1),
    "no first token": put(20, 0),
    "PAD within": put(PAD_ID),
    "a special id within": put(3),
    "no text": block(lambda rows, draw: np.full_like(rows, PAD_ID)),
    "too few rows": block(lambda rows, draw: rows[1:]),
    "longer rows": block(lambda rows, draw: np.tile(rows, 2)),
    "other numbers": block(lambda rows, draw: rows.astype(draw.choice(["<i8", ">u2", "<f2", "<u4", "S2"]))),
    "columns first": block(lambda rows, draw: np.asfortranarray(rows)),
    "an empty member": lambda entry, content, draw: b"",
    "no array": lambda entry, content, draw: draw.randbytes(draw.randint(1, 400)),
    "a huge array": header(DESCRIPTION % ("'<u2'", False, f"({2**40}, {LENGTH})")),
    "objects": header(DESCRIPTION % ("'|O'", False, f"({PER_MEMBER}, {LENGTH})")),
    "code in the description": header(f"__import__('pathlib').Path('{ESCAPED}').touch()"),
    "a deep description": header("-" * 110 + "1"),
    "a list as key": header("{[]: 1}"),
    "an open bracket": header("{'descr': ("),
    "any description": random_header,
    "another member's name": named(member_name("train-000001.tar", 99)),
    "no key": named("x"),
    "a path that leads out": named(f"../../{ESCAPED}"),
    "an absolute path": named(f"/tmp/{ESCAPED}"),
    "a symbolic link": linked(tarfile.SYMTYPE),
    "a hard link": linked(tarfile.LNKTYPE),
    "a device": linked(tarfile.CHRTYPE),
    "a folder": linked(tarfile.DIRTYPE),
}
COLUMNS = ("offset", "bytes", "rows")  # of members.npy


def forge(folder: Path, shard: int, draw: random.Random) -> tuple[str, set[int]]:
    """How one member of the shard was forged, and which members no longer are what they were."""
    kind = draw.choice(list(FORGERIES))
    name, number, members = f"train-{shard:06d}.tar", draw.randrange(MEMBERS), []
    with tarfile.open(folder / name) as archive:
        entries = [(entry, archive.extractfile(entry).read()) for entry in archive.getmembers()]  # type: ignore[union-attr]
    with (folder / name).open("wb") as file:
        for place, (entry, content) in enumerate(entries):
            if place == number:
                content = FORGERIES[kind](entry, bytearray(content), draw)
            entry.size = len(content)
            members.append(Member(file.tell(), entry.size, zlib.crc32(content), PER_MEMBER))
            file.write(entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    path = folder / name
    info = ShardInfo(file=name, bytes=path.stat().st_size, sha256=sha256(path), members=tuple(members))
    manifest = Manifest.load(folder)
    split = manifest.splits["train"]
    infos = [info if known.file == name else known for known in split.shards]
    renewed = split.model_copy(update={"shards": type(split.shards).of(infos)})
    manifest.model_copy(update={"splits": {"train": renewed}}).save(folder)
    return kind, {number}


def damage(folder: Path, shard: int, draw: random.Random) -> tuple[str, set[int]]:
    """The same for bytes of the file that have changed."""
    path = folder / f"train-{shard:06d}.tar"
    before = path.read_bytes()
    members = Manifest.load(folder).splits["train"].shards.members_of(shard)
    while True:
        content, change = bytearray(before), draw.choice(DAMAGES)
        change(content, draw)
        if content != before:
            break
    path.write_bytes(content)
    parts = [(int(member["offset"]), int(member["offset"] + 512 + member["bytes"])) for member in members]
    return change.__name__, {n for n, (start, stop) in enumerate(parts) if content[start:stop] != before[start:stop]}


def misplace(folder: Path, shard: int, draw: random.Random) -> tuple[str, set[int]]:
    """The same for the manifest's table of members: a number that is anything but what it was."""
    manifest = Manifest.load(folder)
    split, number = manifest.splits["train"], draw.randrange(MEMBERS)
    members = split.shards.members.copy()
    column, value = draw.choice(COLUMNS[:2]), draw.choice([0, 1, 2**16, 2**31, 2**40, 2**62, 2**63, 2**64 - 1])
    members[column][shard * MEMBERS + number] = value
    shards = type(split.shards)("train", split.shards.columns, members)
    manifest.model_copy(update={"splits": {"train": split.model_copy(update={"shards": shards})}}).save(folder)
    same = members[column][shard * MEMBERS + number] == split.shards.members[column][shard * MEMBERS + number]
    return f"{column}={value}", set() if same else {number}


def check(seed: int, whole: Path, folder: Path) -> dict[str, object]:
    draw = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    shard, how = draw.randrange(ROWS // SHARD_ROWS), (damage, damage, forge, forge, misplace)[seed % 5]
    kind, lost = how(folder, shard, draw)
    result: dict[str, object] = {"seed": seed, "damage": f"{how.__name__}: {kind}", "lost": len(lost)}
    try:
        result["wrong"] = wrong(folder, shard, lost, how is damage)
    except Exception as error:
        result["wrong"] = f"{type(error).__name__}: {error}"
    if any(path.name == ESCAPED for place in (Path(), folder.parent, folder, Path("/tmp")) for path in place.glob("*")):
        result["wrong"] = "code was run, or a name followed"
    return result


def wrong(folder: Path, shard: int, lost: set[int], on_disk: bool) -> str:
    """What is not as it should be: ``lost`` members of ``shard`` are named and no others, all other rows are read."""
    named = [bad.file for bad in verify_shards(folder, "train")]
    if named != [f"train-{shard:06d}.tar"] * on_disk:
        return f"verified: {named}"
    store = MemberStore(folder, "train")
    rows = [row_number(row) for tokens, _ in store.blocks() for row in tokens]
    if set(store.bad_members) != {(shard, number) for number in lost} or not all(store.bad_members.values()):
        return f"quarantined: {store.bad_members}, not {lost}"
    gone = {shard * SHARD_ROWS + number * PER_MEMBER + row for number in lost for row in range(PER_MEMBER)}
    if rows != sorted(set(range(ROWS)) - gone):
        return f"rows: {rows}"
    if sum(len(batch.length) for batch in evaluation_batches(folder, "train", batch_size=10)) != len(rows):
        return "evaluation reads others"
    return _wrong_training(folder, lost, gone)


def _wrong_training(folder: Path, lost: set[int], gone: set[int]) -> str:
    reader = ShardReader(Source(folder, epochs=1), Share(8))
    read = [row_number(row) for batch in reader for row in batch.tokens.numpy()]
    if reader.quarantined != len(lost):
        return f"{reader.quarantined} counted in training, not {len(lost)}"
    if len(read) != ROWS or set(read) != set(range(ROWS)) - gone:
        return f"training reads {read}"
    return ""


def main(folder: Path, first: int, stop: int) -> None:
    whole = write_folder(folder / "whole", ROWS, PER_MEMBER, MEMBERS)
    for seed in range(first, stop):
        print(json.dumps({"started": seed}), flush=True)
        signal.alarm(SECONDS)
        print(json.dumps(check(seed, whole, folder / "damaged")), flush=True)
    print(json.dumps({"peak megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
