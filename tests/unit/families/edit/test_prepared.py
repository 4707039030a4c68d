"""What is known of a step before it begins is the same whoever finds it out, and when."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from stages import make_stage
from tiny_model import make_tokenizer
from tiny_rounds import ALL, CONFIG, EVERY_START, WIDTH, make_batch, make_model, make_plan, rounds_plan

from benchmarks.runs import small_run
from dualmask.core.batch import Batch
from dualmask.core.errors import ErrorTables
from dualmask.core.tokenizer import Tokenizer
from dualmask.curriculum import plan_at
from dualmask.families.edit import labels, task
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.prepared import HolesBatch, RoundsBatch, prepare
from dualmask.families.edit.task import EditTask, RoundsTask, begin, unroll
from dualmask.ops.alignment import align
from launcher.ahead import Ahead, Workers

NO_TABLES = ErrorTables()
HOLES = {"name": "filler", "steps": 10, "train": ["filler", "inserter"], "lr": {"peak": 1e-3}, "corrupted": 0.5}


START_AND_DIE = """
import os, signal
from pathlib import Path
from launcher.ahead import Workers
workers = Workers(1, "dualmask", Path({tokenizer!r}))
print(workers._pool.submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def holes_plan() -> EditPlan:
    return EditPlan.of(plan_at([make_stage(HOLES)], 3))


def test_a_prepared_batch_gives_the_same_loss() -> None:
    for plan, kind in ((holes_plan(), EditTask), (rounds_plan(samples=2), RoundsTask)):
        taught, batch = kind(make_model()), make_batch()
        ahead = taught.prepare(batch, plan)
        for rounds in taught.windows(plan)[:1]:
            losses = [taught.window(each, plan, rounds, None) for each in (batch, ahead)]
            assert torch.equal(losses[0].total, losses[1].total)
            assert losses[0].parts == losses[1].parts


@pytest.mark.parametrize("plan", [holes_plan(), rounds_plan()], ids=["holes", "rounds"])
def test_parts_of_a_batch_are_prepared_as_the_whole(plan: EditPlan) -> None:
    whole = prepare(make_batch(), plan, NO_TABLES)
    for part in (slice(0, 2), slice(2, 6)):
        alone, cut = prepare(make_batch().rows(part), plan, NO_TABLES), whole.rows(part)
        for name in ("tokens", "length", "key", "draft", "draft_length", "match"):
            assert torch.equal(getattr(alone, name), getattr(cut, name))
        assert {name: values.tolist() for name, values in alone.known.items()} == {
            name: values.tolist() for name, values in cut.known.items()
        }


def test_holes_are_counted_on_the_host() -> None:
    batch = prepare(make_batch(), holes_plan(), NO_TABLES)
    assert isinstance(batch, HolesBatch)
    assert batch.holes == batch.deleted.sum() > 0
    assert batch.deletable_tokens == batch.start.deletable.sum()


def test_it_is_prepared_once_a_step_and_anew_for_another() -> None:
    plan = rounds_plan(step=3)
    batch = prepare(make_batch(), plan, NO_TABLES)
    assert isinstance(batch, RoundsBatch)
    assert prepare(batch, plan, NO_TABLES) is batch
    later = prepare(batch, rounds_plan(step=4), NO_TABLES)
    assert later.is_for(rounds_plan(step=4))
    assert not torch.equal(later.draft, batch.draft)
    assert torch.equal(later.draft, prepare(make_batch(), rounds_plan(step=4), NO_TABLES).draft)


def test_the_session_prepares_each_batch_for_its_step() -> None:
    """Stages of which one ended early, or brought batches of its own, make the data lag behind the steps."""
    run = small_run(
        HOLES | {"steps": 4, "corrupted": 0.0}, CONFIG.model_dump(), batch={"sequences": 6}, parallel={"zero_stage": 1}
    )
    lag = [0]
    ahead = Ahead(run, 1, None, lambda: lag[0])
    assert ahead(0, make_batch()).step == (0, 1)
    assert ahead(1, make_batch()).step == (0, 2)
    lag[0] = 1
    assert ahead(1, make_batch()).step == (0, 3)
    assert ahead(2, make_batch()).tokens.shape == make_batch().tokens.shape  # behind the last step: as it was read


def test_processes_prepare_the_same_batches_and_end_with_the_pool(tmp_path: Path) -> None:
    tokenizer_file = make_tokenizer(tmp_path / "tokenizer.model")
    run = small_run(HOLES, CONFIG.model_dump(), batch={"sequences": 6}, parallel={"zero_stage": 1})
    tokenizer = Tokenizer(tokenizer_file)
    workers = Workers(2, run.family.name, tokenizer_file)
    here, beside = Ahead(run, 1, tokenizer), Ahead(run, 1, tokenizer, workers=workers)
    pending = [beside(number, make_batch()) for number in range(4)]
    for number, one in enumerate(pending):
        expected, given = here(number, make_batch()), one()
        assert given.step == expected.step
        for name in ("tokens", "length", "key", "draft", "draft_length", "match", "deleted"):
            assert torch.equal(getattr(given, name), getattr(expected, name))
    children = multiprocessing.active_children()
    assert children
    beside.close()
    assert not any(child.is_alive() for child in children)


def test_processes_do_not_outlive_the_one_that_made_them(tmp_path: Path) -> None:
    script = START_AND_DIE.format(tokenizer=str(make_tokenizer(tmp_path / "tokenizer.model")))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [psutil.Process(int(number)) for number in done.stdout.split() if psutil.pid_exists(int(number))]
    assert not psutil.wait_procs(left, timeout=30)[1]


def test_later_drafts_are_aligned_beside_the_rounds_with_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit those of an alignment at once, in a thread that ends with the step."""
    threads: set[str] = set()

    def align_rows(*planes):
        threads.add(threading.current_thread().name)
        return original(*planes)

    original = labels.align_rows
    monkeypatch.setattr(labels, "align_rows", align_rows)
    plan, batch = rounds_plan(), make_batch()
    state, outs = unroll(make_model(), begin(batch, plan), batch, plan, range(4))
    for out in outs:
        assert torch.equal(out.match, align(out.draft, out.length, batch.tokens, batch.length))
    assert {name.split("_")[0] for name in threads} == {"alignment"}
    del state, outs
    for thread in threading.enumerate():
        if thread.name.startswith("alignment"):
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_an_alignment_that_fails_fails_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*planes):
        raise MemoryError("alignment")

    plan, batch = rounds_plan(), make_batch()
    state = begin(batch, plan)
    monkeypatch.setattr(labels, "align_rows", fail)
    with pytest.raises(MemoryError, match="alignment"):
        unroll(make_model(), state, batch, plan, range(2))


def test_a_state_without_labels_is_aligned_when_it_is_read() -> None:
    plan, batch, model = rounds_plan(), make_batch(), make_model()
    state = begin(batch, plan)
    with_labels, (out,) = unroll(model, state, batch, plan, range(1))
    without, (same,) = unroll(model, replace(state, labels=None), batch, plan, range(1))
    assert torch.equal(with_labels.tokens, without.tokens)
    assert torch.equal(out.match, same.match)


def test_no_round_but_the_first_searches_for_a_number_of_deletions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is shortened in round 0 only. What that costs is spared later, and changes nothing."""
    rates = []
    original = task.TrainingRules.delete

    def delete(rules):
        rates.append(rules.given.asked_rate)
        assert rules.given.number == 0 or (rules.given.keep_rate == 1).all()
        return original(rules)

    monkeypatch.setattr(task.TrainingRules, "delete", delete)
    plan, batch = rounds_plan(), make_batch()
    unroll(make_model(), begin(batch, plan), batch, plan, range(3))
    assert [rate is None for rate in rates] == [False, True, True]


def test_the_rows_of_round_zero_have_the_labels_of_their_start_states() -> None:
    plan, batch = make_plan(train=ALL, rollout={"rounds": 1, "starts": EVERY_START, "samples": 2}), make_batch()
    ahead, state = prepare(batch, plan, NO_TABLES), begin(batch, plan)
    target = Batch(*(plane.repeat_interleave(2, 0) for plane in (batch.tokens, batch.length, batch.key)))
    assert torch.equal(state.labels.positions, align(state.tokens, state.length, target.tokens, target.length))
    assert state.labels.deletable == (state.length - 2).sum()
    assert ahead.draft.shape == (6, WIDTH)
