"""Makes the bad shards of a data folder again, and nothing else: a new one takes the old one's place only if it has the
digest of the manifest.

They are cut again from the documents that the build has left in ``.work``, or else the whole corpus is built again
beside, with the configuration that ``built.json`` records.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import Any

from data_pipeline import lineage, lock, packing, writing
from data_pipeline.build import BUILT_FILE, build, left_inputs, pack_rows
from data_pipeline.cluster import cores, running_ray
from data_pipeline.files import sha256
from data_pipeline.manifest import Manifest
from data_pipeline.stages import WORK_FOLDER, Stages, digest
from data_pipeline.steps import discard
from data_pipeline.verify import verify_shards
from dualmask.config.data import DataBuildConfig

_AGAIN = "again"

log = logging.getLogger(__name__)


class RepairError(ValueError):
    """The shards cannot be made again. The message is one line that names the folder and the remedy."""


def repair(folder: Path, wait: bool = True) -> list[str]:
    """Returns the shards that were made again. ``wait``: for a build that writes there; otherwise LockedError.

    Raises ManifestError, RepairError or LockedError; the folder is then as it was.
    """
    folder = folder.absolute()
    Manifest.load(folder)
    work = folder / WORK_FOLDER
    work.mkdir(exist_ok=True)
    with lock.held(work, folder, wait):
        bad = _bad(folder, Manifest.load(folder))
        if bad:
            config, started_in = _recorded(folder)
            with chdir(started_in) if started_in.is_dir() else nullcontext():
                if not _from_work(bad, config, work):
                    _from_sources(bad, config, work)
            _replace(bad, work / _AGAIN, folder)
            discard(work / _AGAIN)
        return list(bad)


def _bad(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The digests that shards should have, and have not."""
    digests = {shard.file: shard.sha256 for info in manifest.splits.values() for shard in info.shards}
    filled = [split for split, info in manifest.splits.items() if info.rows]
    found = [bad.file for split in filled for bad in verify_shards(folder, split)]
    return {file: digests[file] for file in found if file in digests}


def _recorded(folder: Path) -> tuple[DataBuildConfig, Path]:
    """The configuration of the build, and the folder that it was started in, which its relative paths lead from."""
    try:
        record: dict[str, Any] = json.loads((folder / BUILT_FILE).read_bytes())
        config = DataBuildConfig.model_validate({**record["config"], "output": str(folder)})
        return config, Path(record["started_in"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RepairError(
            f"{folder}: {BUILT_FILE}, which records how it was built, is missing or damaged: run dualmask data build"
        ) from None


def _from_work(bad: Mapping[str, str], config: DataBuildConfig, work: Path) -> bool:
    """Makes the shards from the documents that are left. False if that does not give them."""
    inputs = left_inputs(config, work)
    if inputs is None:
        return False
    log.info("making %d shards again from the documents in %s", len(bad), work)
    try:
        with running_ray(config.workers or cores()):
            pack_rows(config, work, inputs, Stages(work))
            writing.write_again(bad, config, work, work / _AGAIN, digest(inputs["shards"]))
        discard(work / packing.FOLDER)
    except Exception as error:  # whatever is wrong there: the sources may be right
        log.info("%s is damaged: %s", work, " ".join(str(error).split())[-200:])
    if _others(bad, work / _AGAIN):
        discard(work / _AGAIN)
        return False
    return True


def _from_sources(bad: Mapping[str, str], config: DataBuildConfig, work: Path) -> None:
    """Builds the whole corpus again. Raises RepairError."""
    log.info("building all of %s again beside it, from the sources", config.output)
    try:
        build(config.model_copy(update={"output": work / _AGAIN}))
    except ValueError as error:
        raise RepairError(f"{config.output}: it cannot be built again: {error}") from None
    if others := _others(bad, work / _AGAIN):
        discard(work / _AGAIN)
        raise RepairError(
            f"{config.output}: {others[0]} would not be what it was, as sources or program have changed: bring "
            "back the sources, or build anew (dualmask data build)"
        )


def _others(bad: Mapping[str, str], made: Path) -> list[str]:
    """The shards in ``made`` that are not what they should be."""
    return [file for file, expected in bad.items() if not (made / file).exists() or sha256(made / file) != expected]


def _replace(files: Mapping[str, str], made: Path, folder: Path) -> None:
    for file in files:
        (made / file).replace(folder / file)
        origins = lineage.file_of(file)
        if (made / origins).exists():
            (folder / lineage.FOLDER).mkdir(exist_ok=True)
            (made / origins).replace(folder / origins)
