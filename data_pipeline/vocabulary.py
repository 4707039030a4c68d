"""Stage 2: ``tokenizer.model``, a sentencepiece unigram model trained on a sample of the train documents.

Alternatively an existing tokenizer: a local file, or one of the Hugging Face hub.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
from numpy.typing import NDArray

from data_pipeline import documents, hub
from data_pipeline.files import replacing, write_atomically
from data_pipeline.hashing import mix, text_hash, unit
from data_pipeline.steps import Result, Step
from dualmask.config.data import TokenizerConfig
from dualmask.core.tokenizer import BOS, BOS_ID, EOS, EOS_ID, MASK, PAD, PAD_ID, PRED, UNK_ID, UNKNOWN, Tokenizer

_FILES = ("tokenizer.json", "tokenizer.model")  # the names looked for in a folder
_THREADS = 4  # fixed: the sums inside the trainer depend on it
_SAMPLE = text_hash("tokenizer sample")
MORE_TEXT = "give more text"

log = logging.getLogger(__name__)


class VocabularyError(ValueError):
    """A tokenizer cannot be made or used. The message is one line that names key, value and remedy."""


def find(config: TokenizerConfig) -> Path | None:
    """The tokenizer file that ``config`` names; None if one is to be trained. Raises VocabularyError."""
    if config.name is not None:
        key, path = f"tokenizer.name={config.name}", _on_the_hub(config, config.name)
    else:
        key, path = f"tokenizer.model={config.model}", config.model
    if path is None:
        return None
    candidates = [path, *(path / name for name in _FILES)]
    path = next((file for file in candidates if file.is_file()), None)
    if path is None:
        raise VocabularyError(f"{key}: has no tokenizer.json, give another or train one (vocab_size)")
    try:
        Tokenizer(path)
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{key}: {error}") from None
    return path


def _on_the_hub(config: TokenizerConfig, name: str) -> Path | None:
    try:
        return hub.fetch(name, _FILES[:1], "model")
    except hub.HubError as error:
        unreachable = isinstance(error, hub.Unreachable)
        if unreachable and config.if_unreachable == "train":
            log.warning("tokenizer.name=%s: %s: using one trained on this text instead", name, error)
            return None
        remedy = "set HF_ENDPOINT to a hub that has it, tokenizer.model to a local tokenizer.json"
        remedy += ", or tokenizer.if_unreachable=train" if unreachable else ""
        raise VocabularyError(f"tokenizer.name={name}: {error}: {remedy}") from None


def describe(config: TokenizerConfig, tokenizer_file: Path | None) -> str:
    """One line for the manifest."""
    if tokenizer_file is None:
        reason = f", as {config.name} could not be reached" if config.name else ""
        return f"sentencepiece, trained on the train documents{reason}"
    if config.name:
        return f"{config.name}, of the Hugging Face hub"
    return f"{tokenizer_file.parent.name}/{tokenizer_file.name}, given"


def make(config: TokenizerConfig, tokenizer_file: Path | None, work: Path, target: Path, step: Step, seed: int) -> None:
    """Copies ``tokenizer_file``, or trains on a sample of the documents in ``work`` with a running Ray.

    Raises VocabularyError.
    """
    if tokenizer_file is None:
        train_on([Sampled(work, 1.0)], config, target, step, seed)
        return
    with replacing(target) as temporary:
        shutil.copyfile(tokenizer_file, temporary)


@dataclass(frozen=True)
class Sampled:
    """A corpus of which a tokenizer is trained: the folder of its documents, and its share of the sample."""

    work: Path
    share: float


def train_on(corpora: Sequence[Sampled], config: TokenizerConfig, target: Path, step: Step, seed: int) -> None:
    """Writes a tokenizer of a sample of the documents of ``corpora``, with a running Ray. Raises VocabularyError."""
    files: list[Path] = []
    is_whole = True
    for number, corpus in enumerate(corpora):
        tasks = {f"{number}-{block.name}": {"block": block.name} for block in documents.selected(corpus.work)}
        shared: dict[str, Any] = {"work": corpus.work, "seed": seed}
        sizes: Counter[int] = Counter()
        for result in step.run(weigh, {f"{key}.weights": task for key, task in tasks.items()}, **shared):
            sizes.update({int(place): size for place, size in result.items()})
        bound, all_of_it = threshold(sizes, config.sample_megabytes * 1e6 * corpus.share)
        step.run(draw, {f"{key}.sample": task for key, task in tasks.items()}, bound=bound, **shared)
        files += [step.folder / f"{key}.sample.txt" for key in tasks]
        is_whole &= all_of_it
    step.run(learn, {"model": {"files": files, "config": config, "is_whole": is_whole}})
    with replacing(target) as temporary:
        shutil.copyfile(step.folder / "model", temporary)


# --- the sample -------------------------------------------------------------------------------------------------------


def sample_places(ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """[N] where each document stands in the order by which a sample is drawn: a hash of its id, as one of 128 steps an
    octave, so that any share of the corpus is met within one per cent. Independent of the hash that splits."""
    hashes = np.array([text_hash(name) for name in ids], np.uint64)
    return (unit(mix(_SAMPLE, seed, hashes)).view(np.uint64) >> np.uint64(45)).astype(np.int64)


def threshold(sizes: Mapping[int, int], wanted: float) -> tuple[int, bool]:
    """The place below which a sample of about ``wanted`` bytes lies, and whether that is everything.

    ``sizes``: bytes at each place.
    """
    places = np.array(sorted(sizes), np.int64)
    sums = np.cumsum([0, *(sizes[place] for place in places.tolist())])
    count = int(np.abs(sums - wanted).argmin())
    is_whole = count == len(places)
    return (int(places[-1]) + 1 if len(places) else 0) if is_whole else int(places[count]), is_whole


def weigh(folder: Path, key: str, block: str, work: Path, seed: int) -> Result:
    """Runs in Ray's processes: the bytes of train text of a block, by place in the order of the sample."""
    rows = [row for row in documents.rows(work, block, ["id", "split", "bytes"]) if row["split"] == "train"]
    sizes: Counter[int] = Counter()
    for place, row in zip(sample_places([row["id"] for row in rows], seed).tolist(), rows, strict=True):
        sizes[place] += row["bytes"]
    return {str(place): size for place, size in sizes.items()}


def draw(folder: Path, key: str, block: str, work: Path, seed: int, bound: int) -> Result:
    """Runs in Ray's processes: the lines of a block's train documents that stand below ``bound``."""
    with replacing(folder / f"{key}.txt") as temporary, temporary.open("wb") as file:
        for group in documents.groups(work, block):
            ids, splits = (group(name) for name in ("id", "split"))
            drawn = (sample_places(ids, seed) < bound) & (np.array(splits) == "train")
            for text in itertools.compress(group("text") if drawn.any() else [], drawn):
                file.writelines(f"{line}\n".encode() for line in text.split("\n") if line)
    return {}


def learn(folder: Path, key: str, files: Sequence[Path], config: TokenizerConfig, is_whole: bool) -> Result:
    """Runs in one of Ray's processes: the model of the lines in ``files``. Raises VocabularyError."""
    lines = (line.decode().removesuffix("\n") for file in files for line in file.open("rb"))
    more = "" if is_whole else f"raise tokenizer.sample_megabytes={config.sample_megabytes:g}"
    write_atomically(folder / key, train(lines, config.vocab_size, more or MORE_TEXT))
    return {}


def train(lines: Iterator[str], vocab_size: int, more: str = MORE_TEXT) -> bytes:
    """A serialised model of exactly ``vocab_size`` pieces. Raises VocabularyError; ``more``: how to get more lines."""
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            pad_piece=PAD,
            unk_piece=UNKNOWN,
            bos_piece=BOS,
            eos_piece=EOS,
            control_symbols=[MASK, PRED],
            user_defined_symbols=["\n"],  # one token, never part of another
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            byte_fallback=True,
            character_coverage=0.9995,
            max_sentence_length=2**16,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        limit = re.search(r"<= (\d+)", str(error))
        remedy = f"set it to {limit[1]} or less, or {more}" if limit else f"change it, or {more}"
        reason = str(error).rpartition("]")[2].strip().partition("\n")[0] or "no text"
        raise VocabularyError(f"tokenizer.vocab_size={vocab_size} does not fit the text ({reason}): {remedy}") from None
    return model.getvalue()
