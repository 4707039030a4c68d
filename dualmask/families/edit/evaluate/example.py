"""A text through one round (before → skeleton → masked → filled) and through several, for people."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK, MASK_ID, PAD_ID
from dualmask.evaluation import texts
from dualmask.families.edit.evaluate import corrupted
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import TextResult, Writer
from dualmask.families.edit.infer.trace import RoundTrace, replay
from dualmask.inference.loading import Loaded
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.ops import gaps


@torch.no_grad()
def show(loaded: Loaded, lines: list[str], keep_rate: float) -> dict[str, str]:
    """A text that does not repeat itself; deleted by the picker, places and words by the model's own opinion."""
    model, tokenizer = loaded.model, loaded.tokenizer
    batch = texts.batches([_varied(lines)], tokenizer, loaded.config.max_length, limit=1)[0]
    batch = batch.to(next(model.parameters()).device)
    picked = model.pick(batch, torch.full((1,), keep_rate, device=batch.tokens.device), step=0, temperature=0.0)
    skeleton = gaps.drop(batch.tokens, batch.present & (picked.keep > 0.5))
    count = model.count(skeleton).gap_logits.argmax(-1)
    width = int(skeleton.length + (count * gaps.gap_present(skeleton.length, batch.tokens.shape[1])).sum())
    masked = gaps.insert(skeleton, count, width)
    slot = masked.is_mask.flatten().nonzero().squeeze(1)
    best = whole_vocabulary(model.fill(masked.tokens, masked.length, slot), tokenizer.vocab_size).argmax(-1)
    filled = masked.tokens.flatten().scatter(0, slot, best)

    def piece(index: int) -> str:
        if index == MASK_ID:
            return MASK
        return "" if index in (BOS_ID, EOS_ID, PAD_ID) else tokenizer.piece(index)

    return {
        "before": tokenizer.decode(batch.tokens[0].tolist()),
        "skeleton": tokenizer.decode(skeleton.tokens[0].tolist()),
        "masked": "".join(piece(index) for index in masked.tokens[0].tolist()),
        "filled": tokenizer.decode(filled.tolist()),
    }


def play(loaded: Loaded, lines: list[str], rounds: int = 4) -> list[TextResult]:
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
