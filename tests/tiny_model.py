"""An exported model that nobody trained: real tokenizer, real folder, random weights that make decided choices."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import sentencepiece as spm
import torch

from dualmask.config.schema import ModelConfig
from dualmask.export import write_export
from dualmask.models.dualmask import DualMask
from dualmask.parallel import mesh
from dualmask.tokenizer import BOS, EOS, MASK, PAD, PRED, Tokenizer

VOCABULARY = 512
CONFIG = ModelConfig(hidden=32, heads=2, filler_layers=1, inserter_layers=1, picker_layers=1, max_length=32)


def make_tokenizer(path: Path) -> Path:
    """Trains on the language reference of the running Python."""
    lines = [
        line for topic in sorted(pydoc_data.topics.topics) for line in pydoc_data.topics.topics[topic].split("\n\n")
    ]
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(" ".join(line.split()) for line in lines[:1000]),
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
    mesh.single_process()
    tokenizer = make_tokenizer(folder.with_suffix(".model"))
    torch.manual_seed(0)
    model = DualMask(CONFIG, Tokenizer(tokenizer).vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    write_export(folder, weights, CONFIG, VOCABULARY, tokenizer)
    return folder
