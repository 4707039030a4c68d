"""What a stage learnt, for people: a few texts from round to round, a few spans from step to step."""

from __future__ import annotations

import torch

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import MASK, MASK_ID, Tokenizer
from dualmask.curriculum import StepPlan
from dualmask.families.edit.outputs import RoundOut, RoundState
from dualmask.families.edit.starts import KINDS
from dualmask.families.outputs import SpanDraft
from dualmask.nn.parallel.vocabulary import whole_vocabulary
from dualmask.training.engine import StageEngine

ROWS = 8


def sample_rounds(engine: StageEngine, batch: Batch, plan: StepPlan, tokenizer: Tokenizer) -> dict[str, str]:
    """``{"stage-….txt": text}`` from the batch's first rows. Collective."""
    batch = batch.rows(slice(0, ROWS)).to(engine.device)
    outs, state = engine.inspect(batch, plan)
    if isinstance(state, SpanDraft):
        blocks = [_span(batch, state, number, tokenizer) for number in range(len(batch.length))]
    elif state is not None:
        blocks = [_rounds(batch, outs, state, number, plan, tokenizer) for number in range(len(batch.length))]
    elif outs and outs[0].filler is not None:
        best = whole_vocabulary(outs[0].filler.logits, tokenizer.vocab_size).argmax(-1)
        filled = batch.tokens.flatten().scatter(0, outs[0].filler.slot, best).view_as(batch.tokens)
        blocks = [_in_place(batch, outs[0].deleted, filled, number, tokenizer) for number in range(len(batch.length))]
    else:  # a stage that teaches the inserter alone fills nothing, and a language model none of its texts
        return {}
    return {f"stage-{plan.stage_index}-{plan.stage.name}.txt": "\n\n".join(blocks) + "\n"}


def _in_place(batch: Batch, deleted: torch.Tensor, filled: torch.Tensor, number: int, tokenizer: Tokenizer) -> str:
    """One text of a stage that plays no rounds."""
    length = int(batch.length[number])
    tokens, gone = batch.tokens[number, :length].tolist(), deleted[number, :length].tolist()
    out = torch.where(deleted[number], filled[number], batch.tokens[number])[:length].tolist()
    lines = {
        "before": tokenizer.decode(tokens),
        "masked": _marked(tokens, gone, tokenizer, MASK),
        "filled": tokenizer.decode(token for token in out if token != MASK_ID),
    }
    return _lines(lines)


def _rounds(
    batch: Batch, outs: list[RoundOut], state: RoundState, number: int, plan: StepPlan, tokenizer: Tokenizer
) -> str:
    """One text from round to round; what a round deletes stands in brackets."""
    row = number * plan.stage.rollout.samples
    lines = {"target": tokenizer.decode(batch.tokens[number, : int(batch.length[number])].tolist())}
    for turn, out in enumerate(outs):
        length = int(out.length[row])
        tokens, gone = out.draft[row, :length].tolist(), out.deleted[row, :length].tolist()
        gate = "" if out.gate is None else f" gate {torch.sigmoid(out.gate.logit[row]):.2f}"
        lines[f"{turn}{gate}"] = _marked(tokens, gone, tokenizer, None)
    lines["end"] = tokenizer.decode(state.tokens[row, : int(state.length[row])].tolist())
    return f"start: {KINDS[int(state.kind[row])]}\n" + _lines(lines)


def _span(batch: Batch, draft: SpanDraft, number: int, tokenizer: Tokenizer) -> str:
    """One span behind its prompt, up to the step behind which the gate stops: there the open places are filled."""

    def text(ids: torch.Tensor) -> str:
        return "".join(map(tokenizer.piece, ids.tolist()))

    prompt = batch.tokens[number, : int(draft.prompt_length[number])].tolist()
    lines = {"prompt": tokenizer.decode(prompt), "target": text(draft.target[number])}
    last = int(draft.stop[number])
    for turn in range(last + 1):
        nats = f"{turn + 1}, {draft.mean_entropy[number, turn]:.2f} nats"
        lines[nats] = text(draft.written[number, turn])
    lines["end"] = text(draft.filled[number, last])
    return _lines(lines)


def _marked(tokens: list[int], gone: list[bool], tokenizer: Tokenizer, mark: str | None) -> str:
    """Deleted tokens as ``mark``, or in brackets."""
    pieces = [(tokenizer.piece(token), out) for token, out in zip(tokens[1:-1], gone[1:-1], strict=True)]
    return "".join((mark or f"⟦{piece}⟧") if out else piece for piece, out in pieces)


def _lines(lines: dict[str, str]) -> str:
    return "\n".join(f"{name:14}{text.replace(chr(10), '⏎')}" for name, text in lines.items())
