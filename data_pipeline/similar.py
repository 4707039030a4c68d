"""Groups of near-duplicates, for the report: how many there are of each size, with a pair of documents to look at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_pipeline import arrays
from data_pipeline.dedup import EXAMPLES_FILE, SIZES_FILE, Place
from data_pipeline.steps import Result, Step

_CHUNK = 2**16  # documents whose groups are in memory at a time
_BEFORE, _SHOWN = 80, 320  # characters of a document before its first difference, and in all


def groups(work: Path, made_from: str, read: Path, places: Sequence[Place]) -> list[dict[str, Any]]:
    """What ``describe`` says, with a running Ray; near-duplicates have been looked for."""
    step = Step(work / "dropped", made_from)
    (result,) = step.run(describe, {"groups": {}}, read=read, places=places)
    found: list[dict[str, Any]] = result["groups"]
    return found


def describe(folder: Path, key: str, read: Path, places: Sequence[Place]) -> Result:
    """Runs in one of Ray's processes: the groups by size (2, 3 to 4, 5 to 8, …), each size with the document that is
    kept of one group, and one that is dropped."""
    sizes, examples = (arrays.mapped(folder / name) for name in (SIZES_FILE, EXAMPLES_FILE))
    found: dict[int, dict[str, Any]] = {}
    for first in range(0, len(sizes), _CHUNK):
        part = np.array(sizes[first : first + _CHUNK])
        for kept in np.flatnonzero(part).tolist():
            power = int(part[kept]).bit_length()
            group = found.setdefault(power, {"groups": 0, "documents": 0, "kept": first + kept})
            group["groups"] += 1
            group["documents"] += int(part[kept]) + 1
    for group in found.values():
        kept = group.pop("kept")
        group["pair"] = _pair(*(_document(read, places, number) for number in (kept, int(examples[kept]))))
    return {
        "groups": [{"from": 2 ** (power - 1) + 1, "to": 2**power, **found[power]} for power in sorted(found)],
    }


def _document(read: Path, places: Sequence[Place], number: int) -> dict[str, Any]:
    """A document of the blocks in ``read``; some hundred are in memory for it."""
    place = next(place for place, after in pairwise(places) if place.document <= number < after.document)
    file, row = pq.ParquetFile(read / f"{place.name}.parquet"), number - place.document
    for group in range(file.num_row_groups):
        if row < (count := file.metadata.row_group(group).num_rows):
            return dict(file.read_row_group(group).slice(row, 1).to_pylist()[0])
        row -= count
    raise IndexError(f"{place.name} has no document {number}")


def _pair(*documents: dict[str, Any]) -> list[dict[str, Any]]:
    """Both documents around their first difference."""
    texts = ["\n".join(document["paragraphs"]) for document in documents]
    differs = (place for place, (one, other) in enumerate(zip(*texts, strict=False)) if one != other)
    start = max(0, next(differs, min(map(len, texts))) - _BEFORE)
    return [
        {
            "id": document["id"][:_SHOWN],
            "place": f"{document['file']} {document['start']} {document['stop']}",
            "text": ("… " if start else "") + text[start : start + _SHOWN] + (" …" * (len(text) > start + _SHOWN)),
        }
        for document, text in zip(documents, texts, strict=True)
    ]
