"""What a stage learnt, for people: a few texts before → skeleton → masked → filled."""

from __future__ import annotations

import torch

from dualmask.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.parallel.vocabulary import whole_vocabulary
from dualmask.tokenizer import MASK, MASK_ID, Tokenizer
from dualmask.training.engine import StageEngine

ROWS = 4


def sample_round(engine: StageEngine, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> dict[str, str]:
    """``{"stage-….txt": text}`` from one teacher-forced round over the batch's first rows. Collective."""
    batch = batch.rows(slice(0, ROWS)).to(engine.device)
    out = engine.inspect(batch, plan)
    if out.filler is None:  # a stage that teaches the inserter alone fills nothing
        return {}
    best = whole_vocabulary(out.filler.logits, tokenizer.vocab_size).argmax(-1)
    filled = batch.tokens.flatten().scatter(0, out.filler.slot, best).view_as(batch.tokens)
    filled = torch.where(out.deleted, filled, batch.tokens)
    blocks = [_row(batch, out.deleted, filled, number, tokenizer) for number in range(len(batch.length))]
    return {f"stage-{plan.stage_index}-{plan.stage.name}.txt": "\n\n".join(blocks) + "\n"}


def _row(batch: Batch, deleted: torch.Tensor, filled: torch.Tensor, number: int, tokenizer: Tokenizer) -> str:
    length = int(batch.length[number])
    tokens, gone = batch.tokens[number, :length].tolist(), deleted[number, :length].tolist()
    skeleton = [token for token, out in zip(tokens, gone, strict=True) if not out]
    masked = "".join(
        MASK if out else tokenizer.piece(token) for token, out in zip(tokens[1:-1], gone[1:-1], strict=True)
    )
    lines = {
        "before": tokenizer.decode(tokens),
        "skeleton": tokenizer.decode(skeleton),
        "masked": masked,
        "filled": tokenizer.decode(token for token in filled[number, :length].tolist() if token != MASK_ID),
    }
    return "\n".join(f"{name:9}{text}" for name, text in lines.items())
