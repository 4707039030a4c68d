"""What a build has left out (``source.on_error: skip``): ``skipped.jsonl`` in its output, one JSON object a loss."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from data_pipeline.document import Skipped
from data_pipeline.files import replacing, write_atomically
from data_pipeline.sources import too_many
from dualmask.config.data import SourceConfig

SKIPPED_FILE = "skipped.jsonl"

log = logging.getLogger(__name__)


@contextmanager
def recorded(folder: Path, key: str) -> Iterator[Callable[[Skipped], None]]:
    """Writes what one task gives to it into a file of ``folder``; keys are in the order of the input."""
    items: list[Skipped] = []
    yield items.append
    if items:
        text = "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
        write_atomically(folder / f"{key}.jsonl", text.encode(errors="replace"))


def collect(folder: Path, output: Path, source: SourceConfig) -> int:
    """Puts all that was skipped into ``output/skipped.jsonl``, if anything was; returns how many records.

    Raises SourceError if they are more than ``source.max_errors``.
    """
    (output / SKIPPED_FILE).unlink(missing_ok=True)
    files, lost, last = sorted(folder.glob("*.jsonl")), 0, None
    if not files:
        return 0
    with replacing(output / SKIPPED_FILE) as temporary, temporary.open("wb") as target:
        for file in files:
            for line in file.read_bytes().splitlines(keepends=True):
                last = Skipped(**json.loads(line))
                lost += last.records
                target.write(line)
    log.info("%d records could not be read: %s", lost, output / SKIPPED_FILE)
    if last is not None and lost > source.max_errors:
        raise too_many(last, source)
    return lost
