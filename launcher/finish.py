"""What is added to a finished model before people use it: decided on held-out texts, by one process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from data_pipeline.endless import sources_of
from data_pipeline.reader import ShardReader, Share
from data_pipeline.remote import local_file
from dualmask.config.schema import RunConfig
from dualmask.core.tokenizer import Tokenizer
from dualmask.evaluation import texts
from dualmask.families.registry import find
from dualmask.families.task import Finish
from dualmask.inference.folder import ModelFolder, family_of, open_folder
from dualmask.inference.loading import load
from dualmask.training.export import add_files

SEQUENCES = 200_000  # of the training data that are read
READ_AT_ONCE = 512
HELD_OUT = "dev.jsonl"  # in the data folder


def finish(run: RunConfig) -> None:
    """Lays what the family chooses on held-out texts beside the exported weights. Does nothing if that was done, if the
    family has nothing to choose, or if its last stage taught nothing that decides."""
    folder, rule = run.output / "export", run.family.load_runtime().finish
    wanted = run.eval.thresholds and run.stages[-1].DECIDES
    if rule is None or not wanted or (folder / rule.mark).is_file():
        return
    held_out = local_file(run.data.mixture[0].path, HELD_OUT)
    if not held_out.is_file():
        print(f"{folder}: thresholds stay as they are, {held_out} does not exist", file=sys.stderr, flush=True)
        return
    loaded = load(folder, family=run.model.family)
    try:
        files = rule.files(loaded, texts.read_texts(held_out), learnt(run, loaded.tokenizer), run.stages)
    except ValueError as error:  # the model is trained and exported all the same
        print(f"{folder}: thresholds stay as they are: {error}", file=sys.stderr, flush=True)
        return
    add_files(folder, files)


def choose_again(folder: Path, held_out: list[str]) -> None:
    """The same for a model folder that exists, on other texts. Raises ValueError if its family chooses nothing."""
    opened, rule = _with_rule(folder)
    add_files(opened.path, rule.files(load(opened.path, family=opened.config.family), held_out, None, ()))


def set_thresholds(folder: Path, values: Mapping[str, float | None]) -> None:
    """Some of them by name, in a model folder that exists. Raises ValueError."""
    opened, rule = _with_rule(folder)
    add_files(opened.path, rule.given(opened.path, values))


def _with_rule(folder: Path) -> tuple[ModelFolder, Finish]:
    opened = open_folder(folder, family_of(folder))
    rule = find(opened.config.family).load_runtime().finish
    if rule is None:
        raise ValueError(f"{folder}: a model of the family {opened.config.family} has no thresholds")
    return opened, rule


def learnt(run: RunConfig, tokenizer: Tokenizer) -> Iterator[str]:
    """Texts of the training data, as they are cut into sequences."""
    sources = [replace(source, epochs=1) for source in sources_of(run.data)]
    reader = ShardReader(sources, Share(READ_AT_ONCE, seed=run.data.shuffle_seed))
    try:
        for batch in itertools.islice(reader, -(-SEQUENCES // READ_AT_ONCE)):
            for tokens, length in zip(batch.tokens.tolist(), batch.length.tolist(), strict=True):
                yield tokenizer.decode(tokens[:length])
    finally:
        reader.close()
