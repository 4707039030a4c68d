"""What the stages of DualMaskLM teach, and how their rounds follow each other in training (seed 000).

A window is an unroll of rounds. Each round reads the draft, decides (delete? what? how many masks where?), fills, and
hands a new draft on; labels come from the alignment of each round's own draft with the target. Every module is called
in every round by every rank, and decisions are masks over the batch: ZeRO-3 allows nothing else.
"""

# B sequences of this rank, T tokens, G gaps = T-1

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from dualmask.core import noise
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.edit import preview, starts, stopping
from dualmask.families.edit.alarms import Watch
from dualmask.families.edit.config import EditAlarms
from dualmask.families.edit.curriculum import Earned, EditPlan
from dualmask.families.edit.decisions import RoundInput
from dualmask.families.edit.labels import Aligner, Labels
from dualmask.families.edit.losses import reinforce
from dualmask.families.edit.losses.gate import gate_open
from dualmask.families.edit.losses.total import round_loss, window_loss
from dualmask.families.edit.measure import HolesMeasure, RoundsMeasure
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.prepared import RoundsBatch, prepare, prepared, requested_rates
from dualmask.families.edit.reference import Reference
from dualmask.families.edit.round import RoundResult, play_round
from dualmask.families.edit.training_rules import TrainingRules
from dualmask.families.task import AfterStep, Measure, Preview, Task, WindowLoss
from dualmask.ops.alignment import edit_distance


class EditTask(Task):
    """Stages whose holes are random: to be counted and filled in place."""

    model: DualMask

    def __init__(self, model: DualMask, alarms: EditAlarms | None = None, errors: ErrorTables | None = None) -> None:
        """errors: what words are misspelt as or confused with; see ``ops.corruption`` for what is done without."""
        super().__init__(model)
        self.alarms = alarms or EditAlarms()
        self.errors = errors or ErrorTables()

    def windows(self, plan: StepPlan) -> list[range]:
        return EditPlan.of(plan).windows

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        plan = EditPlan.of(plan)
        return round_loss(self.with_holes(batch, plan), plan)

    def prepare(self, batch: Batch, plan: StepPlan) -> Batch:
        return prepare(batch, plan, self.errors)

    def with_holes(self, batch: Batch, plan: EditPlan) -> RoundOut:
        """Random holes in the texts, of which some have mistakes in them."""
        return self.model(prepared(batch, plan, self.errors), plan)

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        return preview.holes(self.with_holes(batch, EditPlan.of(plan)), batch, tokenizer)

    def measure(self) -> Measure:
        return HolesMeasure(self)

    def after_step(self, plan: StepPlan, metrics: Mapping[str, float]) -> AfterStep:
        """Adds ``gate_open``; counts towards further rounds (`add_round_at`) and towards alarms."""
        metrics = dict(metrics) | gate_open(metrics)
        watch = Watch(**plan.memory.get("watch", {}))
        watch, alarms = watch.after(self.alarms, metrics, plan.stage.name, plan.step)
        earned = Earned(**plan.memory.get("earned", {})).after(plan.stage, metrics.get("restored_prob", 0.0))
        return AfterStep(metrics, {"earned": asdict(earned), "watch": asdict(watch)}, alarms)


class RoundsTask(EditTask):
    """Stages that play rounds on start states of many kinds."""

    def window(self, batch: Batch, plan: StepPlan, rounds: range, state: RoundState | None) -> WindowLoss:
        plan = EditPlan.of(plan)
        outs, state = self.play(batch, plan, rounds, state)
        loss = window_loss(outs, rounds, plan)
        return WindowLoss(loss.total + self._reinforced(outs, plan), loss.parts, state.detach())

    def play(
        self, batch: Batch, plan: EditPlan, rounds: range, state: RoundState | None = None
    ) -> tuple[list[RoundOut], RoundState]:
        """The rounds ``rounds``, and the drafts that they lead to. ``state`` None: they begin here."""
        if state is None:
            state = begin(batch, plan, self.errors)
        state, outs = unroll(self.model, state, batch, plan, rounds, self.reference)
        return outs, state

    def preview(self, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> Preview:
        plan = EditPlan.of(plan)
        outs, state = self.play(batch, plan, range(plan.rounds))
        return preview.rounds(outs, state, batch, plan, tokenizer)

    def measure(self) -> Measure:
        return RoundsMeasure(self)

    @property
    def reference(self) -> Reference | None:
        """Whose decisions on the same draft are compared with the model's; None: nobody's."""
        return None

    def _reinforced(self, outs: list[RoundOut], plan: EditPlan) -> Tensor | float:
        names = reinforce.decisions(plan.stage, self.model.config)
        if not names or plan.loss_weight["reinforce"] == 0:
            return 0.0
        assert outs[-1].cost is not None
        return plan.loss_weight["reinforce"] * reinforce.loss(outs, -outs[-1].cost, names, plan.stage.rollout.samples)


COUNTERS_PER_STEP = 64  # random streams of one optimizer step: one for each round


def copies(batch: Batch, samples: int) -> Batch:
    """Each sequence ``samples`` times, side by side, with a random key of its own for each copy (`reinforce`)."""
    if samples == 1:
        return batch
    number = torch.arange(samples, device=batch.key.device)
    key = noise.mix(batch.key[:, None] + number * 0x51ED).flatten()
    return Batch(batch.tokens.repeat_interleave(samples, 0), batch.length.repeat_interleave(samples), key)


def begin(batch: Batch, plan: EditPlan, errors: ErrorTables | None = None) -> RoundState:
    """The start states of a step. Copies of a text start alike."""
    given, samples = prepared(batch, plan, errors or ErrorTables()), plan.stage.rollout.samples
    assert isinstance(given, RoundsBatch)
    tokens, length, kind, match = (
        plane.repeat_interleave(samples, 0) for plane in (given.draft, given.draft_length, given.kind, given.match)
    )
    target, target_length = (given.known[name].repeat(samples, 0) for name in ("target", "target_length"))
    deletable = int((given.known["draft_length"] - 2).sum()) * samples
    return RoundState(
        tokens=tokens,
        length=length,
        kind=kind,
        written_prob=torch.ones(tokens.shape, device=tokens.device),
        done=torch.zeros_like(kind, dtype=torch.bool),
        digest=stopping.draft_digest(tokens, length)[:, None],
        labels=Labels(match, deletable, Aligner(target, target_length)),
    )


def unroll(
    model: DualMask,
    state: RoundState,
    batch: Batch,
    plan: EditPlan,
    rounds: range,
    reference: Reference | None = None,
) -> tuple[RoundState, list[RoundOut]]:
    """The rounds ``rounds`` in a row. ``batch``: the targets, as the loader gave them."""
    target = copies(Batch(batch.tokens, batch.length, batch.key), plan.stage.rollout.samples)
    keep_rate = torch.ones_like(state.written_prob[:, 0])
    if rounds.start == 0:
        keep_rate = requested_rates(batch.key, plan).repeat_interleave(plan.stage.rollout.samples)
    outs = []
    for number in rounds:
        state, out = train_round(model, state, target, plan, number, keep_rate, reference)
        outs.append(out)
    return state, outs


def train_round(
    model: DualMask,
    state: RoundState,
    target: Batch,
    plan: EditPlan,
    number: int,
    requested_rate: Tensor,
    reference: Reference | None = None,
) -> tuple[RoundState, RoundOut]:
    """Round ``number`` (from 0). requested_rate [B]: keep rate of texts that are to be shortened in round 0.

    ``reference``: whose decisions on the same draft ours are compared with.
    """
    draft = Batch(state.tokens, state.length, target.key)
    shorten = (state.kind == starts.REWRITE) & (number == 0)
    given = RoundInput(
        draft=draft,
        target=target,
        labels=state.labels or Labels.of(draft, target),
        keep_rate=torch.where(shorten, requested_rate, 1.0),
        kind=state.kind,
        live=~(state.done & plan.stage.rollout.stop.in_training),
        plan=plan,
        number=number,
        counter=plan.step * COUNTERS_PER_STEP + number,
    )
    rules = TrainingRules(model, state, given, reference)
    result = play_round(draft.tokens, draft.length, rules, width=draft.tokens.shape[1])
    return _advance(state, rules, result), rules.out(result)


def _advance(state: RoundState, rules: TrainingRules, result: RoundResult) -> RoundState:
    """The state behind the round, with the stop criteria applied per text. A text that stays as it is has finished only
    if the round could have edited it."""
    stop, drawn, decision = rules.given.plan.stage.rollout.stop, rules.drawn, rules.decision
    digest = stopping.draft_digest(result.tokens, result.length)
    distance = torch.ones_like(drawn.confidence)
    if stop.edit_distance is not None:
        distance = edit_distance(state.tokens, state.length, result.tokens, result.length)
    changed = result.changed
    reason = stopping.reasons(
        stop, changed=changed, digest=digest, seen=state.digest, confidence=drawn.confidence, distance=distance
    )
    ruled_out = (decision.gate < 0.5) & ~decision.free
    finished = (reason != stopping.Reason.NONE) & (changed | ~ruled_out)
    return RoundState(
        tokens=result.tokens,
        length=result.length,
        kind=state.kind,
        labels=rules.next_labels(result),
        written_prob=torch.where(result.is_mask, drawn.prob, result.opened.carry(state.written_prob)),
        done=state.done | finished,
        digest=torch.cat([state.digest, digest[:, None]], dim=1),
        soft=drawn.soft,
    )
