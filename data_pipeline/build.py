"""From raw text to a folder of shards in four stages: documents, tokenizer, rows, shards. Finished stages are reused.

A build that was killed continues where it stopped: finished files are kept, a partial file never gets its final name,
and ``manifest.json`` is written last.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline import documents, lock, packing, vocabulary
from data_pipeline.cluster import cores, running_ray
from data_pipeline.files import sha256, write_atomically
from data_pipeline.manifest import (
    MANIFEST_FILE,
    SPLITS,
    TOKENIZER_FILE,
    Manifest,
    ManifestError,
    ShardInfo,
    SplitInfo,
)
from data_pipeline.packing import Packed
from data_pipeline.progress import ProgressBar
from data_pipeline.shards import token_dtype, write_shard
from data_pipeline.sources import SourceError
from data_pipeline.stages import Inputs, Stages, digest
from data_pipeline.vocabulary import VocabularyError
from dualmask.config.data import DataBuildConfig, ShardConfig
from dualmask.core.tokenizer import Tokenizer

WORK_FOLDER = ".work"
_BUILD_RECORD = "build.json"

log = logging.getLogger(__name__)


class BuildError(ValueError):
    """The build cannot continue. The message is one line that names the problem and its remedy."""


def build(config: DataBuildConfig, wait: bool = True) -> Manifest:
    """Builds what is missing in ``config.output`` and returns its manifest. One process builds there at a time.

    ``wait``: for another one that does; otherwise LockedError. Raises ValueError (BuildError, SourceError,
    VocabularyError, LockedError, ClusterError) with one line; finished parts are kept.
    """
    try:
        work = config.output / WORK_FOLDER
        work.mkdir(parents=True, exist_ok=True)
        with lock.held(work, config.output, wait):
            return _built(config, work)
    except Exception as error:
        raise _explained(error, config) from error


def _built(config: DataBuildConfig, work: Path) -> Manifest:
    tokenizer_file = vocabulary.find(config.tokenizer)
    stages = stage_inputs(config, tokenizer_file)
    manifest = _current(config, stages)
    if manifest is not None:
        log.info("%s is complete, nothing to do", config.output)
        return manifest
    return _build(config, tokenizer_file, stages, work)


def stage_inputs(config: DataBuildConfig, tokenizer_file: Path | None) -> dict[str, Inputs]:
    """The inputs of each stage; each contains the digest of the inputs of the stage before it.

    ``tokenizer_file``: an existing tokenizer; None: one is trained. Raises SourceError.
    """
    of_documents = documents.inputs(config)
    trained = config.tokenizer.model_dump(include={"vocab_size", "sample_megabytes"})
    of_tokenizer: Inputs = {"documents": digest(of_documents), **trained}
    if tokenizer_file is not None:
        name = config.tokenizer.name or str(tokenizer_file)
        of_tokenizer = {"model": name, "model_digest": sha256(tokenizer_file)}
    of_rows: Inputs = {"documents": digest(of_documents), "tokenizer": digest(of_tokenizer)}
    of_rows |= {"max_length": config.max_length, "packing": config.packing, "seed": config.seed}
    of_shards = {"rows": digest(of_rows), **config.shards.model_dump()}
    return {"documents": of_documents, "tokenizer": of_tokenizer, "rows": of_rows, "shards": of_shards}


def _current(config: DataBuildConfig, inputs: dict[str, Inputs]) -> Manifest | None:
    """The manifest if it was made from the same inputs and every file that it names exists; otherwise None."""
    try:
        manifest = Manifest.load(config.output)
        record = json.loads((config.output / WORK_FOLDER / _BUILD_RECORD).read_bytes())
        shards = [shard for split in manifest.splits.values() for shard in split.shards]
        whole = all((config.output / shard.file).stat().st_size == shard.bytes for shard in shards)
        whole &= sha256(config.output / TOKENIZER_FILE) == manifest.tokenizer_digest
    except (ManifestError, OSError, ValueError):
        return None
    return manifest if whole and record == digest(inputs) else None


def _build(config: DataBuildConfig, tokenizer_file: Path | None, inputs: dict[str, Inputs], work: Path) -> Manifest:
    (config.output / MANIFEST_FILE).unlink(missing_ok=True)  # it would not describe the files while they change
    packed = {split: Packed.of(work, split) for split in SPLITS}
    start = time.monotonic()
    splits, seconds = _run_stages(config, tokenizer_file, inputs, work, packed)
    tokenizer = Tokenizer(config.output / TOKENIZER_FILE)
    for split in ("dev", "test"):
        _write_texts(config.output / f"{split}.jsonl", split, packed[split], tokenizer)
    manifest = Manifest(
        source=_describe(config),
        tokenizer=vocabulary.describe(config.tokenizer, tokenizer_file),
        config_digest=digest(config.model_dump(mode="json", exclude={"output", "workers"})),
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        max_length=config.max_length,
        packing=config.packing,
        dtype=token_dtype(tokenizer.vocab_size).name,
        splits=splits,
    )
    manifest.save(config.output)
    _tidy(config.output, manifest, packed)
    write_atomically(work / _BUILD_RECORD, json.dumps(digest(inputs)).encode())
    _report(manifest, config.output, seconds | {"all": time.monotonic() - start})
    return manifest


def _run_stages(
    config: DataBuildConfig,
    tokenizer_file: Path | None,
    inputs: dict[str, Inputs],
    work: Path,
    packed: dict[str, Packed],
) -> tuple[dict[str, SplitInfo], dict[str, float]]:
    """The splits, and the seconds taken by each stage that had to run."""
    target = config.output / TOKENIZER_FILE
    outputs = {
        "documents": [work / documents.DOCUMENTS_FILE],
        "tokenizer": [target],
        "rows": [file for split in packed.values() for file in split.files],
    }
    actions: dict[str, Callable[[], None]] = {
        "documents": lambda: documents.extract(config, work),
        "tokenizer": lambda: vocabulary.make(config.tokenizer, tokenizer_file, work, target, config.seed),
        "rows": lambda: packing.pack(work, target, config),
    }
    stages = Stages(work)
    with running_ray(config.workers or cores()):
        for name, action in actions.items():
            stages.run(name, inputs[name], outputs[name], action)
        start = time.monotonic()
        splits = _write_shards(config, packed, digest(inputs["shards"]))
    return splits, stages.seconds | {"shards": time.monotonic() - start}


def _write_shards(config: DataBuildConfig, packed: dict[str, Packed], made_from: str) -> dict[str, SplitInfo]:
    """Writes the shards that do not yet exist for these rows, and returns the description of all splits."""
    import ray

    counts = {split: json.loads(packed[split].counts.read_bytes()) for split in SPLITS}
    files = {split: _shard_files(split, counts[split]["rows"], config.shards) for split in SPLITS}
    missing = [
        {"split": split, "number": number}
        for split in SPLITS
        for number, file in enumerate(files[split])
        if _finished(config.output, file, made_from) is None
    ]
    if missing:
        options = {"config": config, "made_from": made_from}
        written = ray.data.from_items(missing, override_num_blocks=len(missing)).map(write_one_shard, fn_kwargs=options)
        with ProgressBar("shards", len(missing)) as bar:
            for number, _ in enumerate(written.iter_rows(), 1):
                bar.advance_to(number)
    return {
        split: SplitInfo(
            **counts[split],
            shards=tuple(info for file in files[split] if (info := _finished(config.output, file, made_from))),
        )
        for split in SPLITS
    }


def _shard_files(split: str, rows: int, size: ShardConfig) -> list[str]:
    rows_per_shard = size.sequences_per_member * size.members_per_shard
    return [f"{split}-{number:06d}.tar" for number in range(-(-rows // rows_per_shard))]


def write_one_shard(job: dict[str, Any], config: DataBuildConfig, made_from: str) -> dict[str, Any]:
    """Runs in Ray's processes: writes one shard, then the record that it is finished."""
    packed = Packed.of(config.output / WORK_FOLDER, job["split"])
    rows = json.loads(packed.counts.read_bytes())["rows"]
    per_member = config.shards.sequences_per_member
    first = job["number"] * per_member * config.shards.members_per_shard
    stop = min(first + per_member * config.shards.members_per_shard, rows)
    file = f"{job['split']}-{job['number']:06d}.tar"
    info = write_shard(config.output, file, packing.blocks(packed, first, stop, per_member, config.max_length))
    record = {"made_from": made_from, "shard": info.model_dump(mode="json")}
    write_atomically(_shard_record(config.output, file), json.dumps(record).encode())
    return job


def _shard_record(output: Path, file: str) -> Path:
    return output / WORK_FOLDER / f"{file}.json"


def _finished(output: Path, file: str, made_from: str) -> ShardInfo | None:
    try:
        record = json.loads(_shard_record(output, file).read_bytes())
        info = ShardInfo.model_validate(record["shard"])
        whole = (output / file).stat().st_size == info.bytes
    except (OSError, ValueError, KeyError):
        return None
    return info if whole and record["made_from"] == made_from else None


def _write_texts(path: Path, split: str, packed: Packed, tokenizer: Tokenizer) -> None:
    """The rows of a split as text, one ``{"id", "text"}`` per line, in the order of the shards."""
    lines = [
        json.dumps({"id": f"{split}-{number:06d}", "text": tokenizer.decode(ids)}, ensure_ascii=False)
        for number, ids in enumerate(packing.row_ids(packed))
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _tidy(output: Path, manifest: Manifest, packed: dict[str, Packed]) -> None:
    """Removes the temporary files of this build, and shards of an earlier build that are not in the manifest."""
    named = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for record in (output / WORK_FOLDER).glob("*.tar.json"):
        if (shard := record.name.removesuffix(".json")) not in named:
            (output / shard).unlink(missing_ok=True)
            record.unlink()
    for split in packed.values():
        for file in split.files:
            file.unlink()


def _describe(config: DataBuildConfig) -> str:
    if config.source.kind == "embedded":
        return "embedded: docstrings and reference of the installed Python"
    if config.source.repository:
        return f"huggingface: {config.source.repository} ({', '.join(config.source.paths)})"
    return f"{config.source.kind}: {', '.join(Path(path).name for path in config.source.paths)}"


def _report(manifest: Manifest, output: Path, seconds: dict[str, float]) -> None:
    for name, info in manifest.splits.items():
        log.info("%s: %d documents, %d tokens, %d rows", name, info.documents, info.tokens, info.rows)
    took = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    log.info("%s is complete (%s)", output, took)


def _explained(error: Exception, config: DataBuildConfig) -> Exception:
    """The error with a one-line message that caused ``error``, which Ray may have wrapped several times.

    An unexpected error is returned unchanged.
    """
    cause: BaseException | None = error
    while cause is not None:
        # Ray's wrapper is an instance of the class of the error that it wraps
        if isinstance(inner := getattr(cause, "cause", None), BaseException):
            cause = inner
        if isinstance(cause, (SourceError, VocabularyError, BuildError)):
            return type(cause)(str(cause).partition("\n")[0])  # Ray appends further lines
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return BuildError(
                f"the disk of {config.output} is full: make room and build again, finished parts are kept"
            )
        if isinstance(cause, (PermissionError, NotADirectoryError, FileExistsError)):
            path = cause.filename or config.output
            return BuildError(f"{path}: {cause.strerror}: set output to a folder that can be written to")
        cause = cause.__cause__
    return error
