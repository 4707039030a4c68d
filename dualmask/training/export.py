"""Export of a trained run to a folder that inference loads: no pickles, digests of all files, independent of the ranks.

``model.safetensors`` (whole matrices, float32 unless asked otherwise), ``config.json``, ``tokenizer.model``,
``manifest.json``; on request ``training/``, a checkpoint from which any number of ranks can resume.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open

from dualmask.config.model import ModelConfig
from dualmask.config.schema import RunConfig
from dualmask.core import manifest
from dualmask.inference.folder import FORMAT, WEIGHTS, Stored
from dualmask.inference.weights import SCALE, decode, encode
from dualmask.training import tensor_file
from dualmask.training.checkpoint import Checkpoints, TrainingState, write_merged
from dualmask.training.shards import AVERAGE, MODEL, WEIGHT, ShardFolder
from dualmask.training.tensor_file import Form, Tensors

TRAINING = "training"
Which = Literal["last", "average"]


def write_export(
    folder: Path,
    weights: Tensors,
    model: ModelConfig,
    vocab_size: int,
    tokenizer_file: Path,
    checkpoint: Path | None = None,
) -> None:
    """Writes ``folder`` atomically; an existing one is replaced.

    ``checkpoint``: is merged into ``folder/training``.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tensor_file.write(aside / WEIGHTS, weights)
    config = {"format": FORMAT, "vocab_size": vocab_size, "model": model.model_dump(mode="json")}
    (aside / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.copyfile(tokenizer_file, aside / "tokenizer.model")
    if checkpoint is not None:
        write_merged(checkpoint, aside / TRAINING)
    manifest.seal(aside)
    _replace(aside, folder)


def store_as(folder: Path, stored: Stored) -> None:
    """Writes the weights of an exported folder anew, tensor by tensor, however they are stored; who reads it meanwhile
    sees the one or the other."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside)
    with safe_open(folder / WEIGHTS, "pt") as file:
        held = set(file.keys())
        names = sorted(name for name in held if name.removesuffix(SCALE) not in held - {name})
        empty = ((name, torch.empty(file.get_slice(name).get_shape(), device="meta")) for name in names)
        forms = {
            part: Form(tuple(tensor.shape), tensor.dtype)
            for name, weight in empty
            for part, tensor in encode(name, weight, stored)
        }
        parts = ({part: file.get_tensor(part) for part in (name, name + SCALE) if part in held} for name in names)
        whole = (weight for each in parts for weight in decode(each).items())
        stream = (part for name, weight in whole for part in encode(name, weight.float(), stored))
        tensor_file.write(aside / WEIGHTS, Tensors(forms, stream))
    manifest.seal(aside)
    _replace(aside, folder)


def export(
    run_folder: str | Path,
    out_folder: str | Path,
    *,
    training: bool = False,
    weights: Which | None = None,
    stored: Stored | None = None,
) -> None:
    """``dualmask export RUN OUT``: copies a finished run's export, or makes one from its newest undamaged checkpoint.

    RUN may also be the folder of a checkpoint, or an export. ``training``: include the state of training, always from a
    checkpoint. ``weights``: these, always from a checkpoint, too; None: those of the run's checkpoint.export.
    ``stored``: how (``inference.weights``); None: as they are there, from a checkpoint float32. Raises ValueError if
    RUN holds neither, if it is damaged or has no such weights, or if OUT is not new or empty.
    """
    run_folder, out_folder = Path(run_folder), Path(out_folder)
    if out_folder.is_dir() and any(out_folder.iterdir()):
        raise ValueError(f"{out_folder} is not empty: give a new folder")
    finished = run_folder if (run_folder / WEIGHTS).is_file() else run_folder / "export"
    if finished.is_dir() and not training and weights is None:
        if problem := manifest.problem(finished):
            raise ValueError(f"{finished}: {problem}; remove that folder to export from a checkpoint instead")
        aside = out_folder.with_name(f".{out_folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(finished, aside)
        _replace(aside, out_folder)
    else:
        export_checkpoint(_checkpoint(run_folder), out_folder, training=training, weights=weights)
    if stored is not None:
        store_as(out_folder, stored)


def export_checkpoint(
    checkpoint: Path, out_folder: Path, *, training: bool = False, weights: Which | None = None
) -> None:
    """Writes ``out_folder`` from one checkpoint, whose digests the caller has checked. ``weights``: as for ``export``.

    Raises ValueError if it holds no average and that is asked for.
    """
    state, shards = TrainingState.read(checkpoint), ShardFolder(checkpoint)
    run = RunConfig.model_validate(state.config)
    # an objective may hold other weights, such as a teacher's, which are not part of the model
    names = [name for name in shards.names if name.startswith(MODEL)]
    averaged = {name for name in names if AVERAGE in shards.kinds(name)}
    which = weights or run.checkpoint.export
    if which == "average" and not averaged:
        raise ValueError(
            f"{checkpoint} holds no average, because optimizer.ema_decay was not set: export with --weights last"
        )
    kinds = {name: AVERAGE if which == "average" and name in averaged else WEIGHT for name in names}
    forms = {name.removeprefix(MODEL): Form(shards.form(name, kind).shape) for name, kind in kinds.items()}
    wholes = ((name.removeprefix(MODEL), shards.whole(name, kind).float()) for name, kind in kinds.items())
    tokenizer = run.data.folder / "tokenizer.model"
    merged = checkpoint if training else None
    write_export(out_folder, Tensors(forms, wholes), run.model, state.vocab_size, tokenizer, merged)


def add_files(folder: Path, files: Mapping[str, str]) -> None:
    """Adds texts to an exported folder by name, digests and all; who reads it meanwhile sees the one or the other."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside)
    for name, text in files.items():
        (aside / name).write_text(text, encoding="utf-8")
    manifest.seal(aside)
    _replace(aside, folder)


def _checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, otherwise the newest undamaged checkpoint of a run."""
    if (folder / "state.json").is_file():
        if problem := manifest.problem(folder):
            raise ValueError(f"{folder}: {problem}")
        return folder
    checkpoint = Checkpoints(folder, keep_last=1).newest()
    if checkpoint is None:
        raise ValueError(f"{folder} holds neither an export nor a good checkpoint: is it the output of a run?")
    return checkpoint


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
    manifest.sync(target.parent)
