"""From a trained run to a folder that inference loads: no pickles, digests on everything, no trace of how it was split.

``model.safetensors`` (float32, whole matrices), ``config.json``, ``tokenizer.model``, ``manifest.json``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from dualmask import manifest
from dualmask.config.schema import ModelConfig, RunConfig

FORMAT = 1


def write_export(
    folder: Path, weights: dict[str, Tensor], model: ModelConfig, vocab_size: int, tokenizer_file: Path
) -> None:
    """Makes ``folder``, which appears when it is whole and replaces one that stood there."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, aside / "model.safetensors")
    config = {"format": FORMAT, "vocab_size": vocab_size, "model": model.model_dump(mode="json")}
    (aside / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.copyfile(tokenizer_file, aside / "tokenizer.model")
    manifest.seal(aside)
    _replace(aside, folder)


def export(run_folder: str | Path, out_folder: str | Path) -> None:
    """``dualmask export RUN OUT``: a finished run's export, or one made from its newest good checkpoint.

    Raises ValueError where there is neither, or where what is there is damaged; OUT must be new or empty.
    """
    run_folder, out_folder = Path(run_folder), Path(out_folder)
    if out_folder.is_dir() and any(out_folder.iterdir()):
        raise ValueError(f"{out_folder} is not empty: give a new folder")
    finished = run_folder / "export"
    if finished.is_dir():
        if trouble := manifest.problem(finished):
            raise ValueError(f"{finished}: {trouble}; remove that folder to export from a checkpoint instead")
        aside = out_folder.with_name(f".{out_folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(finished, aside)
        _replace(aside, out_folder)
        return
    export_checkpoint(_newest_checkpoint(run_folder), out_folder)


def export_checkpoint(checkpoint: Path, out_folder: Path) -> None:
    """Makes ``out_folder`` from one checkpoint, whose digests the caller has checked: its files are pickles."""
    # here, so that copying an export needs no DeepSpeed
    from dualmask.training.checkpoint import TrainingState
    from dualmask.training.engine import whole_weights_on_disk

    state = TrainingState.read(checkpoint)
    run = RunConfig.model_validate(state.config)
    weights = whole_weights_on_disk(checkpoint, state.split_axes, state.ranks["tensor"])
    write_export(out_folder, weights, run.model, state.vocab_size, run.data.path / "tokenizer.model")


def _newest_checkpoint(run_folder: Path) -> Path:
    from dualmask.training.checkpoint import Checkpoints

    checkpoint = Checkpoints(run_folder, keep_last=1).newest()
    if checkpoint is None:
        raise ValueError(f"{run_folder} holds neither an export nor a good checkpoint: is it the output of a run?")
    return checkpoint


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
    manifest.sync(target.parent)
