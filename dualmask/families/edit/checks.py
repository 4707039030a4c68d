"""What can be known to be wrong with a run of DualMaskLM before anything starts, beside its configuration. No torch."""

from __future__ import annotations

from dualmask.config.corruption import NATURAL
from dualmask.config.schema import RunConfig
from dualmask.core.natural import forms
from dualmask.core.tokenizer import Tokenizer
from dualmask.families.edit.config import EditStage
from dualmask.families.edit.scores import read_scores


def check_run(run: RunConfig, tokenizer: Tokenizer) -> None:
    """Reads every file of human scores. Raises ValueError that names file and line, or the package that is missing."""
    for stage in run.stages:
        for file in stage.files:
            read_scores(file, tokenizer, run.model.max_length)
        if isinstance(stage, EditStage) and NATURAL in stage.kinds_of_errors:
            forms.check()
