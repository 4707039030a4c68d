"""Words of several pieces are mended by a model that is told all of them, and only by that: a tiny one learns it."""

import torch
from tiny_rounds import CONFIG, VOCAB, make_plan

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dualmask.families.edit.completion import Completion, Deletion, Lessons
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.round import play_round
from dualmask.nn.parallel import mesh
from dualmask.ops.alignment import align

STEMS, ENDINGS, WIDTH, STEPS = 3, 4, 8, 140
FRONT, SECOND, WORD, MORE, AROUND = 10, 20, 30, 60, 90  # first ids of stems, endings, words, their rests, and others


def texts(rows: int, seed: int) -> tuple[Batch, Batch]:
    """Drafts that hold a misspelt word of two pieces, and what they should be.

    The word follows from both pieces. Where the second is odd, the word has two pieces itself.
    """
    draw = torch.Generator().manual_seed(seed)
    stem, ending = (torch.randint(size, (rows,), generator=draw) for size in (STEMS, ENDINGS))
    word, long = stem * ENDINGS + ending, ending % 2 == 1
    around = torch.randint(AROUND, AROUND + 20, (rows, 2), generator=draw)
    bos, eos = torch.full((rows,), BOS_ID), torch.full((rows,), EOS_ID)
    draft = torch.stack([bos, around[:, 0], FRONT + stem, SECOND + ending, around[:, 1], eos], dim=1)
    behind = torch.where(long, MORE + word, around[:, 1])
    last = torch.where(long, around[:, 1], eos)
    target = torch.stack([bos, around[:, 0], WORD + word, behind, last, torch.where(long, eos, PAD_ID)], dim=1)
    key, room = torch.arange(rows), (0, WIDTH - 6)
    return (
        Batch(torch.nn.functional.pad(draft, room, value=PAD_ID), torch.full((rows,), 6), key),
        Batch(torch.nn.functional.pad(target, room, value=PAD_ID), 5 + long.long(), key),
    )


def taught(pieces: int) -> DualMask:
    mesh.single_process()
    torch.manual_seed(0)
    changes = {"told_pieces": pieces, "filler_layers": 1, "init_std": 0.1}
    model = DualMask(CONFIG.model_copy(update=changes), VOCAB)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(STEPS):
        draft, target = texts(32, seed=step)
        match = align(draft.tokens, draft.length, target.tokens, target.length)
        deletion = Deletion(draft, model.table(draft.tokens), match, draft.present & (match < 0))
        told = torch.ones(len(match), dtype=torch.bool)
        rules = Completion(model, deletion, target, make_plan(), step, Lessons(told))
        play_round(draft.tokens, draft.length, rules)
        there = rules.inserter.gap_present
        counts = torch.nn.functional.cross_entropy(rules.inserter.gap_logits[there], rules.holes.count[there])
        optimizer.zero_grad()
        ((rules.filler.loss * rules.filler.slot_weight).mean() + counts).backward()
        optimizer.step()
    return model


@torch.inference_mode()
def mended(model: DualMask) -> float:
    """Share of new texts that come out right, when what is wrong is deleted."""
    draft, target = texts(200, seed=-1)
    match = align(draft.tokens, draft.length, target.tokens, target.length)
    rules = GivenRules(model, draft.present & (match < 0), told=draft.tokens)
    out = play_round(draft.tokens, draft.length, rules, WIDTH)
    return float((out.tokens == target.tokens).all(1).float().mean())


def test_words_of_several_pieces_are_mended_by_whom_all_of_them_are_told():
    assert mended(taught(2)) > 0.95
    assert mended(taught(0)) < 0.7
