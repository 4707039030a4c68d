"""The two language models that DualMask is compared with: laws of their losses, causality, equal size."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dualmask.config.load import ConfigError, load_run
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID
from dualmask.curriculum import StepPlan, plan_at, total_steps
from dualmask.families.lm.config import LanguageModelConfig
from dualmask.families.lm.model import Autoregressive, LanguageModel, MaskedDiffusion
from dualmask.families.task import build
from dualmask.nn.parallel import mesh
from dualmask.nn.token_losses import mean_token_loss

CONFIGS = Path(__file__).parents[4] / "configs"
FAMILIES = ("autoregressive", "diffusion")
VOCAB, WIDTH = 64, 16


@pytest.fixture(autouse=True, scope="module")
def _one_process() -> None:
    mesh.single_process()


def make_model(family: str, **settings: int) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden": 32, "heads": 2, "layers": 2, "max_length": WIDTH} | settings
    return build(LanguageModelConfig(family=family, init_std=0.2, **sizes), VOCAB)


def make_batch(rows: int = 4, length: int = WIDTH) -> Batch:
    tokens = torch.randint(6, VOCAB, (rows, WIDTH), generator=torch.Generator().manual_seed(1))
    tokens[:, 0], tokens[:, length - 1], tokens[:, length:] = BOS_ID, EOS_ID, PAD_ID
    return Batch(tokens, torch.full((rows,), length), torch.arange(rows) + 11)


@pytest.fixture
def plan() -> Callable[[int], StepPlan]:
    run = load_run(CONFIGS / "diffusion.yaml")
    return lambda step: plan_at(run.stages, step)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary(family, plan) -> None:
    """Whatever is masked: the weights of a text's slots sum to the number of its tokens."""
    model = make_model(family)
    with torch.no_grad():
        model.table.weight.zero_()
    for step in range(5):
        loss = mean_token_loss(model(make_batch(), plan(step)), make_batch(), model.given)
        assert loss.item() == pytest.approx(math.log(VOCAB), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(family, plan) -> None:
    model, batch = make_model(family), make_batch()
    batch = replace(batch, length=torch.tensor([16, 9, 12, 4]))

    def loss(part: Batch) -> torch.Tensor:
        return mean_token_loss(model(part, plan(3)), part, model.given)

    halves = loss(batch.rows(slice(0, 2))) + loss(batch.rows(slice(2, 4)))
    assert loss(batch).item() == pytest.approx(halves.item() / 2, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns_and_padding_means_nothing(family, plan) -> None:
    model, batch = make_model(family), make_batch(length=10)
    loss = mean_token_loss(model(batch, plan(0)), batch, model.given)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    other = replace(batch, tokens=torch.where(batch.present, batch.tokens, 7))
    assert torch.equal(loss, mean_token_loss(model(other, plan(0)), other, model.given))


def test_autoregressive_scores_every_token_behind_bos() -> None:
    batch = make_batch(2, length=10)
    out = make_model("autoregressive")(batch)
    assert out.target.view(2, 9).tolist() == batch.tokens[:, 1:10].tolist()
    assert out.slot.view(2, 9).tolist() == [[*range(9)], [*range(WIDTH, WIDTH + 9)]]


@pytest.mark.parametrize("place", range(1, WIDTH))
def test_no_token_sees_what_follows(place: int) -> None:
    model = make_model("autoregressive")
    batch = make_batch(1)
    changed = batch.tokens.clone()
    changed[0, place] = 6 + (changed[0, place] - 5) % (VOCAB - 6)
    logits, after = (model(replace(batch, tokens=tokens)).logits for tokens in (batch.tokens, changed))
    assert torch.equal(logits[:place], after[:place])
    assert place == WIDTH - 1 or not torch.allclose(logits[place], after[place])


def test_diffusion_masks_a_uniform_share_and_never_the_edges(plan) -> None:
    model, batch = make_model("diffusion"), make_batch(64)
    inner = WIDTH - 2
    seen: list[int] = []
    fill = model.fill

    def spy(tokens: torch.Tensor, length: torch.Tensor, slot: torch.Tensor, lengths: object) -> torch.Tensor:
        masked = tokens == MASK_ID
        assert torch.equal(masked.flatten().nonzero().squeeze(1), slot)
        assert not masked[:, 0].any()
        assert not masked[:, -1].any()
        seen.extend(masked.sum(1).tolist())
        return fill(tokens, length, slot, lengths)

    model.fill = spy
    for step in range(20):
        out = model(batch, plan(step))
        weight = torch.zeros(64).index_add(0, out.slot // WIDTH, out.slot_weight)
        assert torch.allclose(weight, torch.full((64,), float(inner)))
    share = torch.bincount(torch.tensor(seen), minlength=inner + 1) / len(seen)
    assert share[0] == 0
    assert (share[1:] - 1 / inner).abs().max() < 0.03  # five standard deviations of 1,280 draws


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_a_language(family, plan) -> None:
    """Counting upwards from a random start: the next token follows from the last, a masked one from any other."""
    model = make_model(family)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(2)
    for step in range(150):
        start = torch.randint(0, 40, (32, 1), generator=draw)
        tokens = 6 + (start + torch.arange(WIDTH)) % 40
        tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
        batch = Batch(tokens, torch.full((32,), WIDTH), start.squeeze(1))
        loss = mean_token_loss(model(batch, plan(step)), batch, model.given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unknown = math.log(40) / (WIDTH - model.given)  # the start itself: nothing tells it
    assert loss.item() < unknown + 0.35


def parameters(name: str) -> int:
    run = load_run(CONFIGS / name)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(run.model, 2048).parameters())


@pytest.mark.parametrize("name", ["autoregressive.yaml", "diffusion.yaml"])
def test_the_shipped_baselines_are_as_large_and_learn_as_long_as_the_quick_start(name: str) -> None:
    assert parameters(name) == pytest.approx(parameters("quickstart.yaml"), rel=0.03)
    runs = [load_run(CONFIGS / file) for file in (name, "quickstart.yaml")]
    steps, sequences = zip(*((total_steps(run.stages), run.batch.sequences) for run in runs), strict=True)
    assert steps[0] == pytest.approx(steps[1], rel=0.02)
    assert sequences[0] == sequences[1]
    assert runs[0].data == runs[1].data


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.layers=null", "model.layers = None"),
        ("model.family=dualmask", "model.layers is not a key"),
        ("stages.0.name=joint", "no stage name='joint': its stages are lm"),
        ("stages.0.train=[lm,filler]", r"stage lm cannot train \['filler'\]"),
        ("model.family=retnet", "family='retnet' is not known: give dualmask"),
    ],
)
def test_contradictions_between_family_and_stages_are_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_run(CONFIGS / "autoregressive.yaml", [override])
    assert "\n" not in str(caught.value)


def test_a_language_model_has_no_other_stage() -> None:
    with pytest.raises(ConfigError, match=r"model\.family=autoregressive has no stage name='filler'"):
        load_run(CONFIGS / "autoregressive.yaml", ["stages.0.name=filler", "stages.0.train=[filler]"])


def test_families_are_what_they_say() -> None:
    assert isinstance(make_model("autoregressive"), Autoregressive)
    assert isinstance(make_model("diffusion"), MaskedDiffusion)
