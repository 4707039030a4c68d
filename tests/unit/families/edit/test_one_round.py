"""Training and inference play the same round: on the same drafts, without randomness, they delete, count and write the
same, token for token.

By design the two differ where inference keeps to bounds that training does not have, or the other way round:

* growth: inference lets a text grow by what ``natural_room`` gives, training up to the width of its batch
* windows: inference reads drafts beyond the model's ``max_length`` in pieces
* what may be written: training draws from every token that is not special, inference leaves out control characters and
  parts of characters; training draws from the ``top_k`` most likely tokens only, here from all of them
* locks, holes, thresholds, fill steps and requested numbers, which only inference has; start states, deletions and
  counts by the labels, which only training has

The drafts here stay within all of these: they are short, the batch is wide, every token that is not special may be
written, and the labels decide nothing.
"""

from __future__ import annotations

import torch
from tiny_rounds import VOCAB, make_model, make_plan
from torch import Tensor

from dualmask.core.batch import Batch, present
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, SPECIAL_IDS
from dualmask.families.edit import starts, stopping
from dualmask.families.edit.infer.engine import Engine
from dualmask.families.edit.infer.request import Request, Round
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.task import unroll

DRAFTS, LONGEST, WIDTH, ROUNDS = 200, 10, 96, 3
MOST = 2  # masks a gap


def drafts() -> Batch:
    draw = torch.Generator().manual_seed(3)
    length = torch.randint(2, LONGEST + 1, (DRAFTS,), generator=draw)
    tokens = torch.randint(len(SPECIAL_IDS), VOCAB, (DRAFTS, WIDTH), generator=draw)
    position = torch.arange(WIDTH)
    tokens = torch.where(position == length[:, None] - 1, EOS_ID, tokens)
    tokens = torch.where(present(length, WIDTH), tokens, PAD_ID)
    tokens[:, 0] = BOS_ID
    return Batch(tokens, length, torch.arange(DRAFTS))


def everything_may_be_written() -> Lexicon:
    never = torch.zeros(VOCAB, dtype=torch.bool)
    writable = torch.arange(VOCAB) >= len(SPECIAL_IDS)
    others = dict.fromkeys(("plain", "fallback", "begins_space", "ends_sentence", "ends_line"), never)
    return Lexicon(torch.ones(VOCAB, dtype=torch.long), never, writable, **others, paired=never.long())


def trained(model: DualMask, batch: Batch, rounds: int) -> tuple[RoundState, list[RoundOut]]:
    """The rounds of a training example that begins with a whole text, everything decided by the model itself."""
    plan = make_plan(
        losses={"gate": 1.0},
        deletion={"temperature": 0.0},
        rollout={
            "rounds": rounds,
            "first_round": "gate",
            "on_policy_counts": 1,
            "told_deletions": 1.0,
            "teacher_forced_deletions": 0.0,
            "gate_rows": 0.0,
            "fill_temperature": 0.0,
            "top_k": VOCAB,
        },
    )
    state = RoundState(
        tokens=batch.tokens,
        length=batch.length,
        kind=torch.full_like(batch.length, starts.CLEAN),
        written_prob=torch.ones(batch.tokens.shape),
        done=torch.zeros_like(batch.length, dtype=torch.bool),
        digest=stopping.draft_digest(batch.tokens, batch.length)[:, None],
    )
    return unroll(model, state, batch, plan, range(rounds))


def inferred(model: DualMask, batch: Batch, rounds: int) -> list[list[Round]]:
    texts = [row[1 : size - 1] for row, size in zip(batch.tokens.tolist(), batch.length.tolist(), strict=True)]
    engine = Engine(model, everything_may_be_written())
    return [list(result.rounds) for result in engine.run([Request(ids, "auto", rounds=rounds) for ids in texts])]


def undecided(model: DualMask) -> DualMask:
    """A picker that takes about a tenth of these tokens for wrong, a Gate that opens for a third of these texts, an
    inserter whose weights are dealt anew: as they were drawn it sees something missing everywhere."""
    deal = torch.Generator().manual_seed(52)
    with torch.no_grad():
        for weight in (weight for weight in model.inserter.parameters() if weight.ndim > 1):
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=deal)].view_as(weight))
        model.picker.doubt.bias += 8.5
        model.gate.decide.bias += 0.3
    return model


def test_training_and_inference_play_the_same_round() -> None:
    """Later rounds read drafts that the model itself wrote in part, and know how surely."""
    model, batch = undecided(make_model(max_gap_count=MOST, max_length=WIDTH)), drafts()
    with torch.no_grad():
        state, outs = trained(model, batch, rounds=ROUNDS)
    played = inferred(model, batch, rounds=ROUNDS)
    copies = 0
    behind = [*((out.draft, out.length) for out in outs[1:]), (state.tokens, state.length)]
    assert state.length.max() < WIDTH * 0.75  # within all bounds
    for number, (out, (tokens, length)) in enumerate(zip(outs, behind, strict=True)):
        seen = [(row, rounds[number]) for row, rounds in enumerate(played) if number < len(rounds)]
        assert len(seen) > DRAFTS / 4  # the others have nothing left to do
        if number == 0:
            assert_decisions_differ(out)
        for row, done in seen:
            before, after = int(out.length[row]), int(length[row])
            assert done.draft == out.draft[row, :before].tolist()
            assert (done.gate > 0.5) == bool(out.gate.value[row] > 0.5)
            assert done.result == tokens[row, :after].tolist()
            gone, opened = out.deleted[row].nonzero().squeeze(1).tolist(), inserted(out, tokens, length, row)
            # inference does not count as an edit what writes just what it had deleted
            copied = [position for position in gone if position not in done.deleted]
            assert set(done.deleted) <= set(gone)
            assert sum(count for _, count in done.inserted) == sum(count for _, count in opened) - len(copied)
            if not copied:
                assert (done.deleted, done.inserted) == (gone, opened)
            copies += bool(copied)
    assert 0 < copies < 20


def inserted(out: RoundOut, tokens: Tensor, length: Tensor, row: int) -> list[tuple[int, int]]:
    """(position, count) of the masks that training opened behind kept tokens. The slots are those of its filler."""
    slots = out.filler.slot[out.filler.slot // WIDTH == row] % WIDTH
    is_mask = torch.zeros(WIDTH, dtype=torch.bool)
    is_mask[slots] = True
    kept = (present(out.length, WIDTH)[row] & ~out.deleted[row]).nonzero().squeeze(1).tolist()
    assert tokens[row][: length[row]][~is_mask[: length[row]]].tolist() == out.draft[row][kept].tolist()
    counts = [0] * len(kept)
    behind = -1  # the kept token in front
    for masked in is_mask[: length[row]].tolist():
        if masked:
            counts[behind] += 1
        else:
            behind += 1
    return [(position, count) for position, count in zip(kept, counts, strict=True) if count]


def assert_decisions_differ(out: RoundOut) -> None:
    """The drafts give rise to every decision: texts are edited and are not, tokens go and stay, gaps take 0 to MOST."""
    deletes, opens = out.deleted.any(1), out.gate.value > 0.5
    assert out.gate.free.all()
    assert min(int(deletes.sum()), int((~opens).sum()), int((opens & ~deletes).sum())) > 5
    counts = out.inserter.gap_logits.argmax(-1)[out.inserter.gap_present]
    assert counts.unique().tolist() == list(range(MOST + 1))
