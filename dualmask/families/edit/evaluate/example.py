"""A text through one round (before → skeleton → masked → filled) and through several, for people."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK, MASK_ID, PAD_ID
from dualmask.evaluation import texts
from dualmask.families.edit.evaluate import corrupted
from dualmask.families.edit.evaluate.given import GivenRules
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import TextResult, Writer
from dualmask.families.edit.infer.trace import RoundTrace, replay
from dualmask.families.edit.round import play_round
from dualmask.inference.loading import Loaded


@torch.no_grad()
def show(loaded: Loaded, lines: list[str], keep_rate: float) -> dict[str, str]:
    """A text that does not repeat itself; deleted by the picker; likeliest counts and words."""
    model, tokenizer = loaded.model, loaded.tokenizer
    batch = texts.batches([_varied(lines)], tokenizer, loaded.config.max_length, limit=1)[0]
    batch = batch.to(next(model.parameters()).device)
    picked = model.pick(batch, torch.full((1,), keep_rate, device=batch.tokens.device), step=0, temperature=0.0)
    deleted = batch.present & (picked.keep <= 0.5)
    result = play_round(batch.tokens, batch.length, GivenRules(model, deleted))

    def piece(index: int) -> str:
        if index == MASK_ID:
            return MASK
        return "" if index in (BOS_ID, EOS_ID, PAD_ID) else tokenizer.piece(index)

    return {
        "before": tokenizer.decode(batch.tokens[0].tolist()),
        "skeleton": tokenizer.decode(result.opened.remainder.skeleton.tokens[0].tolist()),
        "masked": "".join(piece(index) for index in result.opened.masked.tokens[0].tolist()),
        "filled": tokenizer.decode(result.tokens[0].tolist()),
    }


def auto_rounds(loaded: Loaded, lines: list[str], rounds: int = 4) -> list[TextResult]:
    """`auto` on the same text, first with a tenth of its tokens corrupted, then as it is, then its first half."""
    right = corrupted.right_texts([_varied(lines)], loaded, limit=1, typos=False)
    pairs = corrupted.make_wrong(right, loaded, rate=0.1, kinds=corrupted.TOKEN_KINDS)
    (wrong,), (text,) = pairs.sources, pairs.targets
    drafts = [loaded.tokenizer.decode(ids) for ids in (wrong, text, text[: len(text) // 2])]
    return Writer(loaded).run([TextRequest(draft, "auto", options={"rounds": rounds}) for draft in drafts])


def drafts(result: TextResult) -> Iterator[tuple[RoundTrace, str]]:
    """Each round with the draft that it led to."""
    for number, done in enumerate(result.trace["trace"], 1):
        yield done, replay(result.draft, result.trace["trace"][:number])


def _varied(lines: list[str]) -> str:
    return max(lines[:200], key=lambda line: len({word for word in line.split() if word.islower()}))
