"""Exported models that nobody trained: real tokenizer, real folder, random weights that make decided choices."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import sentencepiece as spm
import torch

from dualmask.config.model import ModelConfig
from dualmask.config.schema import Family
from dualmask.core.tokenizer import BOS, EOS, MASK, PAD, PRED, Tokenizer
from dualmask.families.edit.config import EditConfig
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.families.span.config import SpanFusionConfig, SpanModelConfig
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from dualmask.training.export import write_export
from dualmask.training.tensor_file import Tensors

VOCABULARY = 512
CONFIG = EditConfig(hidden=32, heads=2, filler_layers=1, inserter_layers=1, picker_layers=1, max_length=32)


def make_tokenizer(path: Path, first: int = 0) -> Path:
    """Trains on the language reference of the running Python, from its paragraph ``first`` on."""
    lines = [
        line for topic in sorted(pydoc_data.topics.topics) for line in pydoc_data.topics.topics[topic].split("\n\n")
    ]
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(" ".join(line.split()) for line in lines[first : first + 1000]),
        model_prefix=str(path.with_suffix("")),
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece=PAD,
        bos_piece=BOS,
        eos_piece=EOS,
        control_symbols=[MASK, PRED],
        minloglevel=2,
    )
    return path


def make_model_folder(folder: Path) -> Path:
    tokenizer = make_tokenizer(folder.with_suffix(".model"))
    return write_random_model(folder, CONFIG, tokenizer)


def language_model_config(family: Family) -> ModelConfig:
    return LanguageModelConfig(family=family, hidden=32, heads=2, layers=2, max_length=CONFIG.max_length)


def span_config() -> SpanFusionConfig:
    parts = SpanModelConfig(decoder_layers=2, encoder_layers=1, g_max=4, gate_hidden=16)
    return SpanFusionConfig(hidden=32, heads=2, max_length=CONFIG.max_length, span=parts)


def write_random_model(folder: Path, config: ModelConfig, tokenizer: Path, seed: int = 0) -> Path:
    mesh.single_process()
    torch.manual_seed(seed)
    vocabulary = Tokenizer(tokenizer).vocab_size
    model = build(config, vocabulary)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    write_export(folder, Tensors.of(weights), config, vocabulary, tokenizer)
    return folder
