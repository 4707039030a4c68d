"""From raw text to a folder of shards in four stages: documents, tokenizer, rows, shards. Finished stages are reused.

A build that was killed continues where it stopped: finished files are kept, a partial file never gets its final name,
and ``manifest.json`` is written last.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import time
from pathlib import Path

from data_pipeline import documents, lineage, lock, packing, vocabulary, writing
from data_pipeline.cluster import cores, running_ray
from data_pipeline.files import remove_partial, sha256, write_atomically
from data_pipeline.manifest import MANIFEST_FILE, TOKENIZER_FILE, Manifest, ManifestError, SplitInfo
from data_pipeline.page import write_page
from data_pipeline.report import write_report
from data_pipeline.shards import token_dtype
from data_pipeline.sources import SourceError
from data_pipeline.stages import WORK_FOLDER, Inputs, Stages, digest
from data_pipeline.steps import Step, discard
from data_pipeline.vocabulary import VocabularyError
from dualmask.config.data import BuildConfig, DataBuildConfig
from dualmask.config.mixture import MIXTURE_FILE
from dualmask.core.tokenizer import Tokenizer

BUILT_FILE = "built.json"  # the configuration, and the folder that its relative paths lead from
_BUILD_RECORD = "build.json"
_SAMPLE = "sample"
_FIRST_STAGES = ("documents", "tokenizer")

log = logging.getLogger(__name__)


class BuildError(ValueError):
    """The build cannot continue. The message is one line that names the problem and its remedy."""


def build(config: DataBuildConfig, wait: bool = True) -> Manifest:
    """Builds what is missing in ``config.output`` and returns its manifest. One process builds there at a time.

    ``wait``: for another one that does; otherwise LockedError. Raises ValueError (BuildError, SourceError,
    VocabularyError, LockedError, ClusterError) with one line; finished parts are kept.
    """
    try:
        work = config.output.absolute() / WORK_FOLDER
        work.mkdir(parents=True, exist_ok=True)
        with lock.held(work, config.output, wait):
            return _built(config, work)
    except Exception as error:
        raise explained(error, config) from error


def is_complete(config: DataBuildConfig) -> bool:
    """Whether ``build`` would have nothing to do. Raises SourceError."""
    try:
        tokenizer_file = vocabulary.find(config.tokenizer)
    except VocabularyError:
        return False
    return _current(config, stage_inputs(config, tokenizer_file)) is not None


def _built(config: DataBuildConfig, work: Path) -> Manifest:
    if (config.output / MIXTURE_FILE).exists():
        raise BuildError(f"output={config.output} holds a mixture ({MIXTURE_FILE}): choose another output")
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
    return _all_inputs(config, of_documents, of_tokenizer)


def _all_inputs(config: DataBuildConfig, of_documents: Inputs, of_tokenizer: Inputs) -> dict[str, Inputs]:
    of_rows: Inputs = {"documents": digest(of_documents), "tokenizer": digest(of_tokenizer)}
    of_rows |= {"max_length": config.max_length, "packing": config.packing, "seed": config.seed}
    of_shards = {"rows": digest(of_rows), **config.shards.model_dump()}
    return {"documents": of_documents, "tokenizer": of_tokenizer, "rows": of_rows, "shards": of_shards}


def left_inputs(config: DataBuildConfig, work: Path) -> dict[str, Inputs] | None:
    """The inputs of the data in ``config.output`` if ``work`` still holds the documents that it was made from; whether
    the sources are there makes no difference."""
    try:
        of_documents, of_tokenizer = (json.loads((work / f"{name}.json").read_bytes()) for name in _FIRST_STAGES)
        inputs = _all_inputs(config, of_documents, of_tokenizer)
        whole = json.loads((work / _BUILD_RECORD).read_bytes()) == digest(inputs)
        whole &= all(path.exists() for path in documents.outputs(work))
        whole &= sha256(config.output / TOKENIZER_FILE) == Manifest.load(config.output).tokenizer_digest
    except (ManifestError, OSError, ValueError):
        return None
    return inputs if whole else None


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
    remove_partial(config.output)
    (config.output / MANIFEST_FILE).unlink(missing_ok=True)  # it would not describe the files while they change
    start = time.monotonic()
    splits, seconds = _run_stages(config, tokenizer_file, inputs, work)
    tokenizer = Tokenizer(config.output / TOKENIZER_FILE)
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
    write_report(config.output, work)
    record = {"started_in": str(Path.cwd()), "config": config.model_dump(mode="json")}
    write_atomically(config.output / BUILT_FILE, json.dumps(record, indent=1).encode() + b"\n")
    manifest.save(config.output)
    write_page(config.output)
    _tidy(config.output, manifest, config.shards.lineage)
    write_atomically(work / _BUILD_RECORD, json.dumps(digest(inputs)).encode())
    _report(manifest, config.output, seconds | {"all": time.monotonic() - start})
    return manifest


def _run_stages(
    config: DataBuildConfig, tokenizer_file: Path | None, inputs: dict[str, Inputs], work: Path
) -> tuple[dict[str, SplitInfo], dict[str, float]]:
    """The splits, and the seconds taken by each stage that had to run."""
    target = config.output / TOKENIZER_FILE
    stages = Stages(work)

    def make_tokenizer() -> None:
        step = Step(work / _SAMPLE, digest(inputs["tokenizer"]))
        vocabulary.make(config.tokenizer, tokenizer_file, work, target, step, config.seed)

    with running_ray(config.workers or cores()):
        extract_documents(config, work, inputs["documents"], stages)
        stages.run("tokenizer", inputs["tokenizer"], [target], make_tokenizer)
        discard(work / _SAMPLE)
        pack_rows(config, work, inputs, stages)
        start = time.monotonic()
        splits = writing.write_shards(config, work, digest(inputs["shards"]))
        writing.write_texts(config.output, work, digest(inputs["rows"]))
    return splits, stages.seconds | {"shards": time.monotonic() - start}


def extract_documents(config: DataBuildConfig, work: Path, inputs: Inputs, stages: Stages) -> None:
    """The first stage, with a running Ray."""

    def extract() -> None:
        documents.extract(config, work, digest(inputs))

    stages.run("documents", inputs, documents.outputs(work), extract)
    documents.tidy(work)


def pack_rows(config: DataBuildConfig, work: Path, inputs: dict[str, Inputs], stages: Stages) -> None:
    """The third stage, with a running Ray."""

    def pack() -> None:
        packing.pack(work, config.output.absolute() / TOKENIZER_FILE, config, digest(inputs["rows"]))

    stages.run("rows", inputs["rows"], packing.outputs(work), pack)
    packing.tidy(work)


def _tidy(output: Path, manifest: Manifest, with_lineage: bool) -> None:
    """Removes the temporary files of this build, and shards of an earlier build that are not in the manifest."""
    named = {shard.file for split in manifest.splits.values() for shard in split.shards}
    wanted = {lineage.file_of(file) for file in named} if with_lineage else set()
    for path in output.glob(f"{lineage.FOLDER}/*.parquet"):
        if f"{lineage.FOLDER}/{path.name}" not in wanted:
            path.unlink()
    for path in output.glob("*.tar"):
        if re.fullmatch(r"(train|dev|test)-\d{6,}\.tar", path.name) and path.name not in named:
            path.unlink()
    remove_partial(output)  # of workers that were killed
    for name in (packing.FOLDER, writing.TEXTS):
        discard(output / WORK_FOLDER / name)


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


def explained(error: Exception, config: BuildConfig) -> Exception:
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
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        reason = str(error).partition("\n")[0]
        return BuildError(
            f"Ray has lost a task again and again ({reason}): the machine may be out of memory; what is finished is "
            "kept, the same command goes on"
        )
    return error
