"""One text through one round, for people: before → skeleton → masked → filled."""

from __future__ import annotations

import torch

from dualmask.evaluation import texts
from dualmask.inference.loading import Loaded
from dualmask.ops import gaps
from dualmask.parallel.vocabulary import whole_vocabulary
from dualmask.tokenizer import BOS_ID, EOS_ID, MASK, MASK_ID, PAD_ID


@torch.no_grad()
def show(loaded: Loaded, lines: list[str], keep_rate: float) -> dict[str, str]:
    """A text that does not repeat itself; deleted by the picker, places and words by the model's own opinion."""
    model, tokenizer = loaded.model, loaded.tokenizer
    varied = max(lines[:200], key=lambda line: len({word for word in line.split() if word.islower()}))
    batch = texts.batches([varied], tokenizer, loaded.config.max_length, limit=1)[0]
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
