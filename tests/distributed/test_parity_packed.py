"""Documents that share rows teach what they teach in padded rows of their own: ranks on packed data, whose trunks read
the present tokens alone, against one plain process whose every text is padded and has a mask."""

from __future__ import annotations

import itertools
from pathlib import Path

import plain
import plain_language_model
import pytest
import tiny
import torch
from test_parity import CHECKPOINTING, SPLIT_ALL, TENSOR, assert_same, run_variants
from torch import Tensor

from data_pipeline.crop import Crop
from data_pipeline.reader import ShardReader, Share
from dualmask.config.load import load_run
from dualmask.nn.layout import Layout, PaddedRows, causal_mask, key_mask

FAMILIES = ("autoregressive", "diffusion")
VARIANTS = {
    "zero3": {"set": [TENSOR], "deepspeed": SPLIT_ALL},
    "zero3_checkpointing": {"set": [TENSOR, CHECKPOINTING], "deepspeed": SPLIT_ALL},
    "zero1_accumulation": {"set": [TENSOR, "parallel.zero_stage=1", "batch.micro=2"]},
}
LM = {
    "stages": [{"name": "lm", "steps": 6, "train": ["lm"], "lr": {"peak": 3e-3, "warmup_steps": 2}}],
    "model": {"family": "autoregressive", "layers": 2},
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("packed") / "tiny", packed=True)


def rows_and_mask(present: Tensor, *, causal: bool, **ignored: object) -> Layout:
    return PaddedRows(present, causal_mask(present, present.shape[1]) if causal else key_mask(present))


@pytest.fixture(scope="module")
def separate_rows() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dualmask.nn.trunk.lay_out", rows_and_mask)
        yield patched


@pytest.mark.distributed
def test_a_curriculum(packed: Path, tmp_path: Path, separate_rows: pytest.MonkeyPatch) -> None:
    seen = run_variants(4, 2, VARIANTS, packed, tmp_path)
    reference = plain.train(load_run(tiny.write_config(tmp_path, packed, "plain")), tiny.VOCAB)
    for variant in VARIANTS:
        assert_same(seen[variant], reference)


@pytest.mark.distributed
def test_language_models(packed: Path, tmp_path: Path, separate_rows: pytest.MonkeyPatch) -> None:
    families = {name: {"set": [TENSOR, f"model.family={name}"], "deepspeed": SPLIT_ALL} for name in FAMILIES}
    seen = run_variants(4, 2, families, packed, tmp_path, **LM)
    for family in FAMILIES:
        run = load_run(tiny.write_config(tmp_path, packed, "plain", **LM), [f"model.family={family}"])
        data = ShardReader(run.data.path, Share(run.batch.sequences, seed=0), Crop(run.data.crop_share))
        batches = list(itertools.islice(data, 6))
        data.close()
        assert min(batch.texts_per_row for batch in batches) > 1.2
        losses, weights = plain_language_model.train(run, tiny.VOCAB, batches)
        assert seen[family]["losses"] == pytest.approx(losses, rel=0, abs=1e-5)
        for name, weight in weights.items():
            assert (seen[family]["weights"][name] - weight).abs().max() < 1e-5, name


@pytest.mark.distributed
def test_another_number_of_ranks_learns_the_same(packed: Path, tmp_path: Path) -> None:
    """Ranks have other numbers of texts, and each text weighs the same."""
    variants = {"zero3": {"set": [], "deepspeed": SPLIT_ALL}}
    seen = {}
    for ranks in (2, 4):
        (tmp_path / str(ranks)).mkdir()
        seen[ranks] = run_variants(ranks, 1, variants, packed, tmp_path / str(ranks), **LM)["zero3"]
    two, four = seen[2], seen[4]
    assert two["losses"] == pytest.approx(four["losses"], rel=0, abs=1e-6)
    assert two["grad_norms"] == pytest.approx(four["grad_norms"], rel=1e-5)
    assert all(torch.allclose(two["weights"][name], weight, atol=1e-6) for name, weight in four["weights"].items())
