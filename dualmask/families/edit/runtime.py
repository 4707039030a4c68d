"""DualMaskLM's part of the registry that needs torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dualmask.config.corruption import NATURAL
from dualmask.config.schema import RunConfig
from dualmask.config.stage import StageConfig
from dualmask.core import words
from dualmask.core.batch import Batch
from dualmask.core.dictionary import dictionary
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import Tokenizer
from dualmask.core.words import WordList
from dualmask.curriculum import StepPlan
from dualmask.families.edit.config import EditAlarms, EditStage, RewardStage, RoundStage
from dualmask.families.edit.infer import operating_point
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.prepared import prepare
from dualmask.families.edit.reward import RewardTask, ScoredEditsTask, make_reward
from dualmask.families.edit.scored import ScoredTexts
from dualmask.families.edit.task import EditTask, RoundsTask
from dualmask.families.task import Finish, Runtime

LEAST_SEEN = 3  # times that a word stands in the texts before it counts as one: what is rarer may be a misprint


def task(model: DualMask, stage: EditStage, run: RunConfig, tokenizer: Tokenizer | None) -> EditTask:
    alarms = run.alarms
    assert isinstance(alarms, EditAlarms)
    if isinstance(stage, RewardStage) and stage.reward.scores:
        assert tokenizer is not None
        return ScoredEditsTask(model, ScoredTexts.of_run(run, stage.reward.scores, tokenizer), alarms)
    errors = ErrorTables.of(tokenizer, stage.kinds_of_errors) if tokenizer else None
    if not isinstance(stage, RoundStage):
        return EditTask(model, alarms, errors)
    if isinstance(stage, RewardStage):
        reward = make_reward(stage.reward.source, tokenizer.decode if tokenizer else None)
        return RewardTask(model, reward, alarms, errors)
    return RoundsTask(model, alarms, errors)


def prepare_ahead(batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Batch:
    assert isinstance(plan.stage, EditStage)
    return prepare(batch, plan, ErrorTables.of(tokenizer, plan.stage.kinds_of_errors))


def copied(names: Collection[str], stage: EditStage) -> dict[str, str]:
    """The trunks named by ``stage.start_from``, and their doubts, begin as others. Layers beyond the source's depth
    stay as they are."""
    known, twins = set(names), {}
    for module, source in stage.start_from.items():
        for name in names:
            twin = module + name.removeprefix(source)
            if name.startswith((f"{source}.trunk.", f"{source}.doubt.")) and twin in known:
                twins[twin] = name
    return twins


def writers(loaded: Any, settings: Any) -> list[Any]:
    """Imported when asked for: training writes nothing."""
    from dualmask.families.edit.evaluate.writers import writers

    return writers(loaded, settings)


def finish(
    loaded: Any, held_out: list[str], learnt: Iterable[str] | None, stages: Sequence[StageConfig]
) -> dict[str, str]:
    """The words that edits may write, and the thresholds by which they are made. learnt None: the words stay."""
    from dualmask.families.edit.evaluate.calibrate import HALF_NATURAL, KINDS, calibrate

    known = None if learnt is None else WordList.of(learnt, least=LEAST_SEEN)
    natural = any(isinstance(stage, EditStage) and NATURAL in stage.kinds_of_errors for stage in stages)
    if known is not None and natural:
        known = known.joined(dictionary())
    files = {} if known is None else {words.FILE: known.text}
    decision = calibrate(loaded, held_out, known=known, kinds=HALF_NATURAL if natural else KINDS)
    return files | {operating_point.FILE: decision.text}


RUNTIME = Runtime(
    build=DualMask,
    task=task,
    copied=copied,
    prepare=prepare_ahead,
    writers=writers,
    finish=Finish(finish, operating_point.FILE, lambda *given: {operating_point.FILE: operating_point.given(*given)}),
)
