"""What a stage of DualMaskLM learnt, for people: a few texts from round to round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import MASK, MASK_ID, Tokenizer
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.starts import KINDS
from dualmask.families.task import Preview, lines_of
from dualmask.nn.parallel.vocabulary import whole_vocabulary


def holes(out: RoundOut, batch: Batch, tokenizer: Tokenizer) -> Preview:
    """A stage that plays no rounds; one that teaches the inserter alone fills nothing, and shows nothing."""
    if out.filler is None:
        return Preview()
    best = whole_vocabulary(out.filler.logits, tokenizer.vocab_size).argmax(-1)
    draft = Batch(out.draft, out.length, batch.key)
    filled = draft.tokens.flatten().scatter(0, out.filler.slot, best).view_as(draft.tokens)
    rows = range(len(draft.length))
    return Preview([_in_place(draft, out.deleted, filled, row, tokenizer) for row in rows])


def rounds(outs: Sequence[RoundOut], state: RoundState, batch: Batch, plan: EditPlan, tokenizer: Tokenizer) -> Preview:
    """Drafts from round to round; what a round deletes stands in brackets."""
    texts = range(len(batch.length))
    return Preview([_rounds(batch, outs, state, text, plan.stage.rollout.samples, tokenizer) for text in texts])


def _in_place(batch: Batch, deleted: Tensor, filled: Tensor, row: int, tokenizer: Tokenizer) -> str:
    length = int(batch.length[row])
    tokens, gone = batch.tokens[row, :length].tolist(), deleted[row, :length].tolist()
    out = torch.where(deleted[row], filled[row], batch.tokens[row])[:length].tolist()
    return lines_of(
        {
            "before": tokenizer.decode(tokens),
            "masked": _marked(tokens, gone, tokenizer, MASK),
            "filled": tokenizer.decode(token for token in out if token != MASK_ID),
        }
    )


def _rounds(
    batch: Batch, outs: Sequence[RoundOut], state: RoundState, text: int, samples: int, tokenizer: Tokenizer
) -> str:
    """One text, of whose ``samples`` copies the first is shown."""
    row = text * samples
    lines = {"target": tokenizer.decode(batch.tokens[text, : int(batch.length[text])].tolist())}
    for number, out in enumerate(outs):
        length = int(out.length[row])
        tokens, gone = out.draft[row, :length].tolist(), out.deleted[row, :length].tolist()
        gate = "" if out.gate is None else f" gate {torch.sigmoid(out.gate.logit[row]):.2f}"
        lines[f"{number}{gate}"] = _marked(tokens, gone, tokenizer, None)
    lines["end"] = tokenizer.decode(state.tokens[row, : int(state.length[row])].tolist())
    return f"start: {KINDS[int(state.kind[row])]}\n" + lines_of(lines)


def _marked(tokens: list[int], gone: list[bool], tokenizer: Tokenizer, mark: str | None) -> str:
    """Deleted tokens as ``mark``, or in brackets."""
    pieces = [(tokenizer.piece(token), out) for token, out in zip(tokens[1:-1], gone[1:-1], strict=True)]
    return "".join((mark or f"⟦{piece}⟧") if out else piece for piece, out in pieces)
