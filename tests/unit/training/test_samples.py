"""Spans as people are shown them at the end of a stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stages import make_engine
from tiny_model import VOCABULARY, make_tokenizer
from tiny_span import PARTS, SPAN, make_model, make_texts, span_plan

from dualmask.config.deepspeed import deepspeed_config
from dualmask.config.schema import RunConfig
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import EOS_ID, PRED_ID, SPECIAL_IDS, Tokenizer
from dualmask.curriculum import plan_at
from dualmask.families.span.outputs import SpanDraft
from dualmask.families.span.rollout import draft
from dualmask.families.task import build
from dualmask.training.engine import init_distributed


@pytest.fixture(scope="module")
def written() -> SpanDraft:
    return draft(make_model(), make_texts(12), span_plan())


def test_a_draft_is_written_a_few_places_a_step(written: SpanDraft) -> None:
    """What is written stays; what was open is filled behind the stop, without anything special."""
    open_ = (written.written == PRED_ID).sum(-1)
    assert open_.tolist() == [[4, 2, 0, 0]] * 12
    for step in range(3):
        known = written.written[:, step] != PRED_ID
        assert torch.equal(written.written[:, step][known], written.written[:, step + 1][known])
        assert torch.equal(written.filled[:, step][known], written.written[:, step][known])
    assert not set(written.filled.unique().tolist()) & (SPECIAL_IDS - {EOS_ID})
    assert torch.equal(written.filled[:, 3], written.written[:, 3])


def test_the_page_shows_every_step_up_to_the_stop(tmp_path: Path) -> None:
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer.model"))
    span = {"lengths": [SPAN]}
    stage = {"name": "span", "steps": 4, "train": ["decoder", "encoder", "gate"], "lr": {"peak": 1e-3}, "span": span}
    tree = {"name": "x", "output": "x", "data": {"path": "d"}, "model": PARTS.model_dump(), "batch": {"sequences": 6}}
    run = RunConfig.model_validate(tree | {"stages": [stage], "parallel": {"zero_stage": 1}})
    init_distributed(tensor=1, timeout_seconds=60, device=torch.device("cpu"))
    torch.manual_seed(0)
    settings = deepspeed_config(run, run.stages[0], data_size=1, cuda=False)
    engine = make_engine(run, build(run.model, VOCABULARY), settings)
    texts, plan = make_texts(), plan_at(run.stages, 3)
    batch = Batch(torch.where(texts.tokens < 6, texts.tokens, texts.tokens + 300), texts.length, texts.key)
    blocks = engine.preview(batch, plan, tokenizer).blocks
    shown = draft(engine.model.eval(), batch, plan)  # type: ignore[arg-type]
    engine.close()
    assert len(blocks) == 6
    for row, block in enumerate(blocks):
        names = [line[:6].split(",")[0].strip() for line in block.strip().splitlines()]
        steps = int(shown.stop[row]) + 1
        assert names == ["prompt", "target", *map(str, range(1, steps + 1)), "end"]
        lines = block.strip("\n").splitlines()
        assert lines[2].count("[PRED]") == 4
        assert "[PRED]" not in lines[-1]
        assert lines[-1].endswith("".join(map(tokenizer.piece, shown.filled[row, steps - 1].tolist())))
