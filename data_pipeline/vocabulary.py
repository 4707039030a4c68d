"""Stage 2: ``tokenizer.model``, a sentencepiece unigram model trained on the train documents (see ``core.tokenizer``).

Alternatively an existing tokenizer: a local file, or one of the Hugging Face hub.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import sentencepiece as spm

from data_pipeline import documents, hub
from data_pipeline.files import replacing, write_atomically
from data_pipeline.hashing import mix, text_hash, unit
from dualmask.config.data import TokenizerConfig
from dualmask.core.tokenizer import BOS, BOS_ID, EOS, EOS_ID, MASK, PAD, PAD_ID, PRED, UNK_ID, UNKNOWN, Tokenizer

_FILES = ("tokenizer.json", "tokenizer.model")  # the names looked for in a folder
_THREADS = 4  # fixed: the sums inside the trainer depend on it


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
    return f"{config.name}, of the Hugging Face hub" if config.name else f"{tokenizer_file.name}, given"


def make(config: TokenizerConfig, tokenizer_file: Path | None, folder: Path, target: Path, seed: int) -> None:
    """Copies ``tokenizer_file``, or trains on the documents in ``folder``. Raises VocabularyError."""
    if tokenizer_file is None:
        write_atomically(target, train(_sample(folder, config.sample_megabytes * 1e6, seed), config.vocab_size))
        return
    with replacing(target) as temporary:
        shutil.copyfile(tokenizer_file, temporary)


def train(lines: Iterator[str], vocab_size: int) -> bytes:
    """A serialised model of exactly ``vocab_size`` pieces. Raises VocabularyError."""
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
        remedy = f"set it to {limit[1]} or less, or give more text" if limit else "change it, or give more text"
        reason = str(error).rpartition("]")[2].strip().partition("\n")[0] or "no text"
        raise VocabularyError(f"tokenizer.vocab_size={vocab_size} does not fit the text ({reason}): {remedy}") from None
    return model.getvalue()


def _sample(folder: Path, size: float, seed: int) -> Iterator[str]:
    """The lines of train documents of about ``size`` bytes in total, chosen by hash."""
    total = sum(len(text.encode()) for _, _, text in documents.texts(folder, "train"))
    share = size / max(total, 1)
    for name, _, text in documents.texts(folder, "train"):
        if unit(mix(seed, text_hash(name)))[0] < share:
            yield from filter(None, text.split("\n"))
